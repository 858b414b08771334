//! Idempotency keys: a change that carries one in `idempotency-key` happens once, however often and at whichever node it is
//! asked for.
//!
//! The key and a hash of the request accompany the request as a value of its task, so that those who serve it need not hand
//! it on. A request that cannot be done once by its key is refused with one: nobody is left in a false belief.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::{Code, ContentHash, IdempotencyKey, Once, Problem};

use crate::refusal::Refusal;
use crate::types::BODY_MAX_BYTES;

pub(crate) const HEADER: &str = "idempotency-key";

tokio::task_local! {
    static ONCE: Once;
}

/// The key of the request that this task serves, if it has one.
pub fn current() -> Option<Once> {
    ONCE.try_with(Clone::clone).ok()
}

/// Does something under a key, as if a request had come with it.
pub async fn under<T>(once: Once, work: impl Future<Output = T>) -> T {
    ONCE.scope(once, work).await
}

pub(crate) fn has_key(request: &Request) -> bool {
    request.headers().contains_key(HEADER)
}

/// Reads the key, and serves the request under it.
pub(crate) async fn read(request: Request, next: Next) -> Response {
    match once(request).await {
        Ok((request, None)) => next.run(request).await,
        Ok((request, Some(once))) => under(once, next.run(request)).await,
        Err(problem) => Refusal(problem).into_response(),
    }
}

async fn once(request: Request) -> Result<(Request, Option<Once>), Problem> {
    let mut keys = request.headers().get_all(HEADER).iter();
    let Some(key) = keys.next() else { return Ok((request, None)) };
    let invalid = |message: String| Problem::new(Code::InvalidValue, message);
    if keys.next().is_some() {
        return Err(invalid(format!("there is more than one `{HEADER}`")));
    }
    let key = key.to_str().ok().and_then(|key| key.parse::<IdempotencyKey>().ok());
    let key = key.ok_or_else(|| invalid(model::once::InvalidKey.to_string()))?;
    if !takes_key(request.method(), request.uri().path()) {
        let message = format!("`{} {}` takes no `{HEADER}`", request.method(), request.uri().path());
        let problem = Problem::new(Code::Unsupported, message);
        return Err(problem.help("what changes this machine itself, or goes into a star, happens as often as it is asked for; nothing was changed"));
    }
    if is_named_by_content(request.uri().path()) {
        return Ok((request, None));
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX_BYTES).await.map_err(|error| {
        let problem = invalid(format!("the body was not read to its end: {error}"));
        problem.help(format!("it has at most {BODY_MAX_BYTES} bytes"))
    })?;
    let request = hash(&parts.method, &parts.uri, &body);
    Ok((Request::from_parts(parts, Body::from(body)), Some(Once { key, request })))
}

/// What can be done once by its key. That of files which are named by their content says nothing new: however often they come, they are
/// there once.
pub(crate) fn takes_key(method: &Method, path: &str) -> bool {
    let Some(path) = path.strip_prefix("/v1/") else { return false };
    let words: Vec<&str> = path.split('/').collect();
    match (method.as_str(), &words[..]) {
        ("PUT" | "DELETE", ["apps" | "secrets", _]) | ("DELETE", ["services" | "nodes", _]) => true,
        ("PUT", ["nodes", _, "duty"])
        | ("PUT" | "DELETE", ["overcommit"] | ["nodes", _, "overcommit"] | ["nodes", _, "taints", _])
        | ("POST", ["services", _, "rollout", _])
        | ("POST", ["services", _, "stars", _, _]) => true,
        ("PUT" | "POST" | "DELETE", ["namespaces", _]) => true,
        ("POST", ["tokens" | "grants"]) | ("DELETE", ["tokens" | "grants" | "snapshots" | "volumes", _]) => true,
        ("POST", ["certificates" | "gossip-keys", "rotate"]) | ("DELETE", ["nodes", _, "certificates"]) => true,
        ("POST", ["services", _, "snapshots"] | ["snapshots", _, "restore"]) => true,
        ("POST", ["bundles"]) | ("PUT", ["blobs", _]) => true,
        ("POST", ["services", _, word]) => {
            ["limits", "scale", "pause", "resume", "restart", "rollback", "runs", "stop", "start"].contains(word)
        }
        _ => false,
    }
}

fn is_named_by_content(path: &str) -> bool {
    path == "/v1/bundles" || path.starts_with("/v1/blobs/")
}

/// Of everything that says what is asked for. Each part is preceded by its length, so that none runs into the next.
fn hash(method: &Method, uri: &Uri, body: &[u8]) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    for part in [method.as_str().as_bytes(), target.as_bytes(), body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    ContentHash(hasher.finalize().into())
}

/// A key that nobody else chooses.
pub(crate) fn random() -> IdempotencyKey {
    let mut bytes = [0; 16];
    // It fails before the kernel has gathered randomness, long before anybody starts an agent.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.parse().expect("digits are a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_the_log_takes_a_key_and_nothing_else() {
        let check = |method: Method, path: &str, expected: bool| {
            assert_eq!(takes_key(&method, path), expected, "{method} {path}");
        };
        for path in ["apps/a", "secrets/s", "apps/ns%2Fa"] {
            check(Method::PUT, &format!("/v1/{path}"), true);
            check(Method::DELETE, &format!("/v1/{path}"), true);
            check(Method::GET, &format!("/v1/{path}"), false);
        }
        for word in ["limits", "scale", "pause", "resume", "restart", "rollback", "runs", "stop", "start"] {
            check(Method::POST, &format!("/v1/services/web/{word}"), true);
        }
        check(Method::POST, "/v1/services/web/snapshots", true);
        check(Method::POST, "/v1/snapshots/s/restore", true);
        for path in ["snapshots/s", "volumes/v", "tokens/t", "grants/g", "nodes/node_1/certificates"] {
            check(Method::DELETE, &format!("/v1/{path}"), true);
        }
        for path in ["tokens", "grants", "certificates/rotate", "gossip-keys/rotate", "bundles"] {
            check(Method::POST, &format!("/v1/{path}"), true);
            check(Method::GET, &format!("/v1/{path}"), false);
        }
        for method in [Method::PUT, Method::POST, Method::DELETE] {
            check(method, "/v1/namespaces/dev", true);
        }
        check(Method::PUT, "/v1/blobs/aa", true);
        check(Method::POST, "/v1/constellation/init", false);
        check(Method::POST, "/v1/stars/1/exec", false);
        check(Method::DELETE, "/v1/services/web", true);
        for turn in ["stop", "start", "restart", "move"] {
            check(Method::POST, &format!("/v1/services/web/stars/1/{turn}"), true);
        }
        check(Method::PUT, "/v1/nodes/node_1/duty", true);
        check(Method::DELETE, "/v1/nodes/node_1", true);
        check(Method::POST, "/v1/shutdown", false);
        check(Method::POST, "/v2/services/web/stop", false);
    }

    #[test]
    fn every_part_of_a_request_counts() {
        let of = |method: Method, uri: &str, body: &str| hash(&method, &uri.parse().unwrap(), body.as_bytes());
        let one = of(Method::PUT, "/v1/apps/a", "{}");
        assert_eq!(one, of(Method::PUT, "/v1/apps/a", "{}"));
        for other in [
            of(Method::DELETE, "/v1/apps/a", "{}"),
            of(Method::PUT, "/v1/apps/a?force=true", "{}"),
            of(Method::PUT, "/v1/apps/a{", "}"),
            of(Method::PUT, "/v1/apps/a", "{ }"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn chosen_keys_are_others() {
        assert_ne!(random(), random());
    }
}

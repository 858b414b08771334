//! Every route, asked by every role with every set of namespaces, for things of every namespace: through the real routes, to an agent
//! that remembers what it was asked. What is expected is written here once more, by path, without the table that decides.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use api::*;
use model::{AppSpec, Name, Rights, Role, Scope, ServiceKey, StarId};
use support::{NAMESPACES, Remembering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Anything that one may see.
    Any,
    /// Something of one namespace.
    One,
    /// What is of none.
    Whole,
}

/// Who may make a request, at least.
fn expected(method: &str, path: &str) -> (Role, Of) {
    let segments: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    match (method, segments.as_slice()) {
        ("GET", ["openapi.json" | "version" | "status" | "index" | "nodes" | "resources" | "events" | "watch"]) => {
            (Role::Viewer, Of::Any)
        }
        (
            "GET",
            ["apps" | "services" | "moves" | "stars" | "snapshots" | "secrets" | "volumes" | "namespaces" | "logs"],
        ) => (Role::Viewer, Of::Any),
        ("POST", ["apps", _, "forecast"]) => (Role::Viewer, Of::One),
        ("GET", ["secrets", _]) => (Role::Admin, Of::One),
        ("GET", ["apps" | "services" | "stars" | "snapshots" | "namespaces", ..]) => (Role::Viewer, Of::One),
        (_, ["apps" | "services" | "stars" | "snapshots" | "secrets" | "volumes", ..]) => (Role::Operator, Of::One),
        ("POST", ["talk"]) => (Role::Operator, Of::One),
        (_, ["bundles" | "blobs", ..]) => (Role::Operator, Of::Any),
        _ => (Role::Admin, Of::Whole),
    }
}

fn routes() -> Vec<(String, String)> {
    let document = serde_json::to_value(api::openapi()).unwrap();
    let mut routes = vec![("GET".to_owned(), "/v1/openapi.json".to_owned())];
    for (path, methods) in document["paths"].as_object().unwrap() {
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    routes
}

/// A path with something of this namespace in it.
fn filled(path: &str, namespace: &str, star: u64) -> String {
    let parameters = [
        ("{app}", format!("{namespace}%2Fweb")),
        ("{service}", format!("{namespace}%2Fweb")),
        ("{secret}", format!("{namespace}%2Fkey")),
        ("{volume}", format!("{namespace}%2Fpages")),
        ("{namespace}", namespace.to_owned()),
        ("{star}", StarId(star).to_string()),
        ("{snapshot}", format!("of-{namespace}")),
        ("{ordinal}", "1".to_owned()),
        ("{turn}", "stop".to_owned()),
        ("{port}", "80".to_owned()),
        ("{hash}", "00".repeat(32)),
        ("{node}", model::NodeId(7).to_string()),
        ("{token}", "3f2a9c01".to_owned()),
        ("{grant}", "ann".to_owned()),
        ("{taint}", "gpu".to_owned()),
    ];
    parameters.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

fn scope(names: &[&str]) -> Scope {
    match names {
        ["*"] => Scope::All,
        names => Scope::Only(names.iter().map(|name| name.parse().unwrap()).collect()),
    }
}

fn caller(role: Role, names: &[&str]) -> Caller {
    let rights = Arc::new(Rights { role, namespaces: scope(names) });
    Caller { grant: Some("ann".parse().unwrap()), rights, ..Caller::nobody() }
}

/// The routes are made once: they come with the document.
struct Agent {
    control: Arc<Remembering>,
    routes: Routes,
}

impl Agent {
    fn new() -> Self {
        let control = Arc::new(Remembering::default());
        Self { routes: Routes::new(control.clone()), control }
    }
}

/// One exchange; the status, the answer, and what the agent was asked.
async fn ask(agent: &Agent, caller: &Caller, method: &str, path: &str, body: &str) -> (u16, String, Vec<String>) {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let (routes, caller) = (agent.routes.clone(), caller.clone());
    let serving = tokio::spawn(async move { routes.serve(far, caller).await });
    let kind = if path.contains("/exec") || path.contains("/copy") { "rads-exec/1" } else { "rads-bytes/1" };
    let upgrade = match method == "POST" && (path.contains("/v1/stars/") || path.contains("/v1/talk")) {
        true => format!("connection: upgrade\r\nupgrade: {kind}\r\n"),
        false => "connection: close\r\n".to_owned(),
    };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\n{upgrade}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    near.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What was upgraded has no end of its own.
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = near.read(&mut buffer).await {
        answer.extend_from_slice(&buffer[..read]);
        if answer.starts_with(b"HTTP/1.1 101") || is_whole(&answer) {
            break;
        }
    }
    drop(near);
    serving.await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let asked = std::mem::take(&mut *agent.control.asked.lock().unwrap());
    (status, answer, asked)
}

/// All of an answer of a length that it says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.parse().unwrap())
}

#[tokio::test]
async fn every_role_verb_and_namespace_is_allowed_or_denied_as_it_should_be() {
    let agent = Agent::new();
    let (mut allowed, mut denied) = (0, 0);
    for (method, path) in routes() {
        let (least, of) = expected(&method, &path);
        for (star, namespace) in NAMESPACES {
            let mut full = filled(&path, namespace, star);
            if path == "/v1/talk" {
                full += &format!("?namespace={namespace}");
            }
            assert!(!full.contains('{'), "{full}");
            for role in Role::ALL {
                for names in [&["*"][..], &["shop"], &["blog"], &["blog", "shop"], &["other"]] {
                    let inside = names == ["*"] || names.contains(&namespace);
                    let expected = role >= least
                        && match of {
                            Of::Any => true,
                            Of::One => inside,
                            Of::Whole => names == ["*"],
                        };
                    let (status, answer, asked) = ask(&agent, &caller(role, names), &method, &full, "{}").await;
                    let what = format!("{role} of {names:?}: {method} {full}: {status}\n{answer}\n{asked:?}");
                    assert_ne!(status, 0, "{what}");
                    let is_denied = status == 403 && answer.contains("C0207");
                    assert_eq!(!is_denied, expected, "{what}");
                    if expected {
                        allowed += 1;
                        assert!(!asked.iter().any(|asked| asked.starts_with("denied")), "{what}");
                    } else {
                        denied += 1;
                        // Nothing else was even asked, and it is noted.
                        assert!(matches!(&asked[..], [only] if only.starts_with("denied: ")), "{what}");
                    }
                }
            }
        }
    }
    assert!(allowed > 400 && denied > 400, "{allowed} {denied}");
}

/// The control: with the checks' own means off, each of those calls gets to the agent, or is refused for what is in it.
#[tokio::test]
async fn who_may_everything_is_denied_nothing() {
    let agent = Agent::new();
    for (method, path) in routes() {
        for (star, namespace) in NAMESPACES {
            let full = filled(&path, namespace, star);
            let (status, answer, _) = ask(&agent, &Caller::owner(0), &method, &full, "{}").await;
            assert!(status != 403 && status != 405 && status != 0, "{method} {full}: {status}\n{answer}");
        }
    }
}

#[tokio::test]
async fn what_is_not_known_is_as_if_it_were_somebody_elses() {
    let agent = Agent::new();
    let ann = caller(Role::Operator, &["shop"]);
    for (method, path) in [
        ("GET", format!("/v1/stars/{}", StarId(99))),
        ("POST", format!("/v1/stars/{}/exec", StarId(99))),
        ("GET", "/v1/stars/no-star".to_owned()),
        ("GET", "/v1/snapshots/none".to_owned()),
        ("GET", "/v1/services/blog%2Fnone".to_owned()),
        ("GET", "/v1/services/%2F%2F".to_owned()),
        ("GET", "/v1/apps/..%2Fweb".to_owned()),
        ("PATCH", "/v1/apps".to_owned()),
        ("GET", "/v1/blobs/x".to_owned()),
        ("GET", "/v2/apps".to_owned()),
        ("GET", "/v1/services/shop%2Fweb/../../backup".to_owned()),
        ("GET", "/v1//backup".to_owned()),
    ] {
        let (status, answer, asked) = ask(&agent, &ann, method, &path, "").await;
        assert!(matches!(status, 403..=405), "{method} {path}: {status} {answer}");
        let reached: Vec<_> =
            asked.iter().filter(|asked| !asked.starts_with("denied") && !asked.starts_with("snapshot none")).collect();
        assert!(reached.is_empty(), "{method} {path}: {reached:?}");
    }
}

#[tokio::test]
async fn a_body_about_another_namespace_than_the_path_is_denied() {
    let agent = Agent::new();
    let ann = caller(Role::Operator, &["shop"]);
    let restore = |service: &str, again: &[&str]| {
        let starts_again = again.iter().map(|service| service.parse().unwrap()).collect();
        let restore = RestoreSnapshot { service: Some(service.parse().unwrap()), check: true, starts_again };
        serde_json::to_string(&restore).unwrap()
    };
    for (body, allowed) in [
        (restore("shop/web", &[]), true),
        (restore("blog/web", &[]), false),
        (restore("shop/web", &["shop/a", "blog/b"]), false),
    ] {
        let (status, answer, asked) = ask(&agent, &ann, "POST", "/v1/snapshots/of-shop/restore", &body).await;
        // The agent of this test has nothing to restore.
        assert_eq!(status, if allowed { 404 } else { 403 }, "{body}: {answer}");
        assert_eq!(asked.iter().any(|asked| asked.starts_with("denied")), !allowed, "{body}: {asked:?}");
    }
    let put = |app: &str| {
        let spec = AppSpec { app: app.parse().unwrap(), services: Default::default() };
        serde_json::to_string(&PutApp { spec, base: None }).unwrap()
    };
    let (status, _, asked) = ask(&agent, &ann, "PUT", "/v1/apps/shop%2Fweb", &put("shop/web")).await;
    assert_eq!((status, asked), (200, vec!["put shop/web None".to_owned()]));
    let (status, _, asked) = ask(&agent, &ann, "PUT", "/v1/apps/shop%2Fweb", &put("blog/web")).await;
    assert_eq!((status, asked), (422, Vec::new()));
}

/// A star without walls has no namespace.
#[tokio::test]
async fn an_app_with_weaker_walls_takes_an_admin_of_all() {
    let agent = Agent::new();
    let mut service = support::service();
    let put = |service: &model::ServiceSpec| {
        let services = [("web".parse::<Name>().unwrap(), service.clone())].into();
        let spec = AppSpec { app: "shop/web".parse().unwrap(), services };
        serde_json::to_string(&PutApp { spec, base: None }).unwrap()
    };
    let status = async |caller: Caller, body: &str| ask(&agent, &caller, "PUT", "/v1/apps/shop%2Fweb", body).await.0;
    assert_eq!(status(caller(Role::Operator, &["shop"]), &put(&service)).await, 200);
    service.template.network = model::Network::Host;
    for (role, names, expected) in [
        (Role::Operator, &["shop"][..], 403),
        (Role::Operator, &["*"], 403),
        (Role::Admin, &["shop"], 403),
        (Role::Admin, &["*"], 200),
    ] {
        assert_eq!(status(caller(role, names), &put(&service)).await, expected, "{role} {names:?}");
    }
}

#[tokio::test]
async fn lists_are_cut_down_to_what_one_may_see() {
    let control = Arc::new(Remembering { listed: true, ..Remembering::default() });
    let client = |names: &'static [&'static str]| {
        let control = control.clone();
        Client::of_node("b".to_owned(), move || {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (routes, caller) = (Routes::new(control.clone()), caller(Role::Viewer, names));
            tokio::spawn(async move { routes.serve(far, caller).await });
            Box::pin(async move { Ok(Road { node: "b".to_owned(), stream: Box::new(near) }) })
        })
    };
    let namespaces = |keys: Vec<Name>| keys.into_iter().map(|name| name.to_string()).collect::<BTreeSet<String>>();
    for (names, expected) in [(&["*"][..], vec!["blog", "shop"]), (&["shop"], vec!["shop"]), (&["other"], Vec::new())] {
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        let client = client(names);
        let of = |key: &ServiceKey| key.namespace.clone();
        let stars = client.stars().await.unwrap();
        assert_eq!(namespaces(stars.iter().map(|star| of(&star.service)).collect()), expected);
        let secrets = client.secrets().await.unwrap();
        assert_eq!(namespaces(secrets.into_iter().map(|view| view.secret.namespace).collect()), expected);
        let snapshots = client.snapshots().await.unwrap();
        assert_eq!(namespaces(snapshots.iter().map(|view| of(&view.service)).collect()), expected);
        let there = client.namespaces().await.unwrap();
        assert_eq!(namespaces(there.into_iter().map(|view| view.namespace).collect()), expected);
        let events = client.events(0, 0).await.unwrap().events;
        let about = events.iter().filter_map(|event| event.service.as_ref()).map(of).collect();
        assert_eq!(namespaces(about), expected);
        let of_all = events.iter().filter(|event| event.service.is_none()).count();
        assert_eq!(of_all, usize::from(names == ["*"]), "what is of no namespace is for who sees all");
    }
}

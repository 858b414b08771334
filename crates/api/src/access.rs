//! What each route asks for, and whether whoever calls may. A request that has no row here is refused, whoever makes it.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use model::access::Place;
use model::{AppKey, Code, Name, Problem, SecretKey, ServiceKey, StarId, Verb, VolumeKey};

use crate::control::{Caller, Control};
use crate::refusal::{Query, Refusal};
use crate::types::TalkQuery;

/// Where a route finds the namespace that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// What it answers is of no namespace, or cut down to those of the caller by the route itself.
    Any,
    /// It concerns all of them.
    All,
    /// In the parameter of its path of this name.
    App,
    Service,
    Secret,
    Volume,
    Namespace,
    Star,
    Snapshot,
    /// In its query; `default` when it is left out.
    Query,
}

pub(crate) struct Row {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) verb: Verb,
    pub(crate) at: At,
}

const fn row(method: Method, path: &'static str, verb: Verb, at: At) -> Row {
    Row { method, path, verb, at }
}

/// Every route. That none is missing, and none is too many, a test compares with the OpenAPI document.
pub(crate) const TABLE: &[Row] = &[
    row(Method::GET, "/v1/openapi.json", Verb::Greet, At::Any),
    row(Method::GET, "/v1/version", Verb::Greet, At::Any),
    row(Method::GET, "/v1/status", Verb::Greet, At::Any),
    row(Method::GET, "/v1/index", Verb::Greet, At::Any),
    row(Method::GET, "/v1/nodes", Verb::Greet, At::Any),
    row(Method::GET, "/v1/resources", Verb::Greet, At::Any),
    row(Method::GET, "/v1/events", Verb::See, At::Any),
    row(Method::GET, "/v1/watch", Verb::See, At::Any),
    row(Method::GET, "/v1/apps", Verb::See, At::Any),
    row(Method::GET, "/v1/apps/{app}", Verb::See, At::App),
    row(Method::PUT, "/v1/apps/{app}", Verb::Change, At::App),
    row(Method::DELETE, "/v1/apps/{app}", Verb::Change, At::App),
    row(Method::POST, "/v1/apps/{app}/forecast", Verb::See, At::App),
    row(Method::GET, "/v1/services", Verb::See, At::Any),
    row(Method::GET, "/v1/moves", Verb::See, At::Any),
    row(Method::GET, "/v1/services/{service}", Verb::See, At::Service),
    row(Method::DELETE, "/v1/services/{service}", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/stars/{ordinal}/{turn}", Verb::Change, At::Service),
    row(Method::GET, "/v1/services/{service}/explain", Verb::See, At::Service),
    row(Method::GET, "/v1/services/{service}/stats", Verb::See, At::Service),
    row(Method::GET, "/v1/services/{service}/passed", Verb::See, At::Service),
    row(Method::POST, "/v1/services/{service}/limits", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/scale", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/pause", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/resume", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/restart", Verb::Change, At::Service),
    row(Method::GET, "/v1/services/{service}/runs", Verb::See, At::Service),
    row(Method::POST, "/v1/services/{service}/runs", Verb::Change, At::Service),
    row(Method::GET, "/v1/services/{service}/versions", Verb::See, At::Service),
    row(Method::POST, "/v1/services/{service}/rollback", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/rollout/{turn}", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/stop", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/start", Verb::Change, At::Service),
    row(Method::POST, "/v1/services/{service}/snapshots", Verb::Snapshot, At::Service),
    row(Method::GET, "/v1/stars", Verb::See, At::Any),
    row(Method::GET, "/v1/stars/{star}", Verb::See, At::Star),
    row(Method::GET, "/v1/stars/{star}/stats", Verb::See, At::Star),
    row(Method::GET, "/v1/stars/{star}/inspect", Verb::See, At::Star),
    row(Method::GET, "/v1/logs", Verb::ReadLogs, At::Any),
    row(Method::POST, "/v1/stars/{star}/exec", Verb::Enter, At::Star),
    row(Method::POST, "/v1/stars/{star}/copy", Verb::Enter, At::Star),
    row(Method::POST, "/v1/stars/{star}/ports/{port}", Verb::Enter, At::Star),
    row(Method::POST, "/v1/talk", Verb::Enter, At::Query),
    row(Method::GET, "/v1/snapshots", Verb::See, At::Any),
    row(Method::GET, "/v1/snapshots/{snapshot}", Verb::See, At::Snapshot),
    row(Method::DELETE, "/v1/snapshots/{snapshot}", Verb::Snapshot, At::Snapshot),
    row(Method::POST, "/v1/snapshots/{snapshot}/restore", Verb::Snapshot, At::Snapshot),
    row(Method::GET, "/v1/volumes", Verb::See, At::Any),
    row(Method::DELETE, "/v1/volumes/{volume}", Verb::Change, At::Volume),
    row(Method::POST, "/v1/bundles", Verb::Upload, At::Any),
    row(Method::PUT, "/v1/blobs/{hash}", Verb::Upload, At::Any),
    row(Method::GET, "/v1/secrets", Verb::See, At::Any),
    row(Method::GET, "/v1/secrets/{secret}", Verb::ReadSecret, At::Secret),
    row(Method::PUT, "/v1/secrets/{secret}", Verb::SetSecret, At::Secret),
    row(Method::DELETE, "/v1/secrets/{secret}", Verb::SetSecret, At::Secret),
    row(Method::GET, "/v1/namespaces", Verb::See, At::Any),
    row(Method::GET, "/v1/namespaces/{namespace}", Verb::See, At::Namespace),
    row(Method::PUT, "/v1/namespaces/{namespace}", Verb::ManageNamespaces, At::Namespace),
    row(Method::POST, "/v1/namespaces/{namespace}", Verb::ManageNamespaces, At::Namespace),
    row(Method::DELETE, "/v1/namespaces/{namespace}", Verb::ManageNamespaces, At::Namespace),
    row(Method::POST, "/v1/constellation/init", Verb::ManageNodes, At::All),
    row(Method::POST, "/v1/constellation/join", Verb::ManageNodes, At::All),
    row(Method::POST, "/v1/constellation/leave", Verb::ManageNodes, At::All),
    row(Method::PUT, "/v1/nodes/{node}/duty", Verb::ManageNodes, At::All),
    row(Method::PUT, "/v1/nodes/{node}/taints/{taint}", Verb::ManageNodes, At::All),
    row(Method::DELETE, "/v1/nodes/{node}/taints/{taint}", Verb::ManageNodes, At::All),
    row(Method::PUT, "/v1/overcommit", Verb::ManageNodes, At::All),
    row(Method::DELETE, "/v1/overcommit", Verb::ManageNodes, At::All),
    row(Method::PUT, "/v1/nodes/{node}/overcommit", Verb::ManageNodes, At::All),
    row(Method::DELETE, "/v1/nodes/{node}/overcommit", Verb::ManageNodes, At::All),
    row(Method::DELETE, "/v1/nodes/{node}", Verb::ManageNodes, At::All),
    row(Method::GET, "/v1/survey", Verb::ManageNodes, At::All),
    row(Method::POST, "/v1/shutdown", Verb::ManageNodes, At::All),
    row(Method::GET, "/v1/backup", Verb::Backup, At::All),
    row(Method::POST, "/v1/tokens", Verb::ManageAccess, At::All),
    row(Method::GET, "/v1/tokens", Verb::ManageAccess, At::All),
    row(Method::DELETE, "/v1/tokens/{token}", Verb::ManageAccess, At::All),
    row(Method::GET, "/v1/certificates", Verb::ManageAccess, At::All),
    row(Method::POST, "/v1/certificates/rotate", Verb::ManageAccess, At::All),
    row(Method::POST, "/v1/gossip-keys/rotate", Verb::ManageAccess, At::All),
    row(Method::DELETE, "/v1/nodes/{node}/certificates", Verb::ManageAccess, At::All),
    row(Method::POST, "/v1/grants", Verb::ManageAccess, At::All),
    row(Method::GET, "/v1/grants", Verb::ManageAccess, At::All),
    row(Method::DELETE, "/v1/grants/{grant}", Verb::ManageAccess, At::All),
    row(Method::GET, "/v1/audit", Verb::ReadAudit, At::All),
];

/// What is known of a request by its head.
pub(crate) enum Verdict {
    /// Its caller may make it, or there is nothing behind its path.
    May,
    MayNot(Response),
    /// It depends on what it is about.
    Depends(&'static Row, Caller),
}

pub(crate) fn verdict(request: &Request) -> Verdict {
    let Some(ConnectInfo(caller)) = request.extensions().get::<ConnectInfo<Caller>>() else {
        return Verdict::MayNot(Refusal(Problem::new(Code::Forbidden, "nobody is known to ask")).into_response());
    };
    let Some(path) = request.extensions().get::<MatchedPath>() else { return Verdict::May };
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let Some(row) = TABLE.iter().find(|row| row.path == path.as_str() && row.method == method) else {
        let problem = "the path does not take this method";
        return Verdict::MayNot(crate::routes::not_a_route(StatusCode::METHOD_NOT_ALLOWED, problem).into_response());
    };
    // Who may everything everywhere need not wait for where it is.
    if caller.check(row.verb, Place::All).is_ok() { Verdict::May } else { Verdict::Depends(row, caller.clone()) }
}

/// Gives a request back that its caller may make, seeing what it is about; answers all others.
pub(crate) async fn check(
    control: &Arc<dyn Control>,
    request: Request,
    row: &Row,
    caller: Caller,
) -> Result<Request, Response> {
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, &()).await.ok();
    let param = |name: &str| {
        let params = params.as_ref()?;
        params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let namespace = match row.at {
        At::Query => Query::<TalkQuery>::from_request_parts(&mut parts, &())
            .await
            .ok()
            .map(|Query(query)| query.namespace.unwrap_or_else(Name::default_namespace)),
        at => namespace(control, at, param).await,
    };
    let place = match (row.at, &namespace) {
        (At::Any, _) => Place::Any,
        (_, Some(namespace)) => Place::In(namespace),
        // What is not known, or not to be read, is no one's.
        (_, None) => Place::All,
    };
    if let Err(problem) = caller.check(row.verb, place) {
        control.by(caller).denied(row.verb, format!("{} {}", row.method, parts.uri.path()));
        return Err(Refusal(problem).into_response());
    }
    Ok(Request::from_parts(parts, body))
}

async fn namespace(control: &Arc<dyn Control>, at: At, param: impl Fn(&str) -> Option<String>) -> Option<Name> {
    match at {
        At::Any | At::All | At::Query => None,
        At::App => param("app")?.parse::<AppKey>().ok().map(|key| key.namespace),
        At::Service => param("service")?.parse::<ServiceKey>().ok().map(|key| key.namespace),
        At::Secret => param("secret")?.parse::<SecretKey>().ok().map(|key| key.namespace),
        At::Volume => param("volume")?.parse::<VolumeKey>().ok().map(|key| key.namespace),
        At::Namespace => param("namespace")?.parse::<Name>().ok(),
        At::Star => control.namespace_of(param("star")?.parse::<StarId>().ok()?).await.ok().flatten(),
        At::Snapshot => {
            let view = control.snapshot(param("snapshot")?.parse::<Name>().ok()?).await.ok()?;
            Some(view.service.namespace)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_of_the_document_has_a_row_and_every_row_a_route() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let mut described: BTreeSet<(String, String)> = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().keys();
            let known = ["get", "put", "post", "delete", "patch", "head", "options", "trace"];
            described.extend(
                methods.filter(|method| known.contains(&method.as_str())).map(|m| (path.clone(), m.to_uppercase())),
            );
        }
        described.insert(("/v1/openapi.json".to_owned(), "GET".to_owned()));
        let rows: BTreeSet<(String, String)> =
            TABLE.iter().map(|row| (row.path.to_owned(), row.method.to_string())).collect();
        assert_eq!(rows.len(), TABLE.len(), "a route has two rows");
        assert_eq!(rows, described);
    }

    #[test]
    fn a_row_finds_its_namespace_in_a_parameter_that_its_path_has() {
        for row in TABLE {
            let named = match row.at {
                At::Any | At::All | At::Query => continue,
                At::App => "{app}",
                At::Service => "{service}",
                At::Secret => "{secret}",
                At::Volume => "{volume}",
                At::Namespace => "{namespace}",
                At::Star => "{star}",
                At::Snapshot => "{snapshot}",
            };
            assert!(row.path.contains(named), "{}", row.path);
        }
    }
}

//! The node itself: version, status, log index, events, and its end.

use axum::Json;
use axum::extract::ConnectInfo;
use axum::response::Response;
use futures_util::StreamExt;
use model::{Problem, StarPhase};

use super::{Asked, lines};
use crate::control::Caller;
use crate::refusal::{Body, Query, Refusal, Reply};
use crate::types::{After, Events, Index, Shutdown, Status, Version};
use crate::watch::{WatchLine, WatchQuery};

/// Who answers
#[utoipa::path(get, path = "/v1/version", tag = "node", responses((status = 200, body = Version)))]
pub(super) async fn version(Asked(control): Asked) -> Json<Version> {
    Json(control.version())
}

/// What the node is and how it is
#[utoipa::path(get, path = "/v1/status", tag = "node", responses(
    (status = 200, body = Status), (status = "default", body = Problem)))]
pub(super) async fn status(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Status> {
    let mut status = control.status().await?;
    if !caller.rights.namespaces.is_all() {
        // How many there are of others' is theirs.
        let stars = control.stars().await?;
        let stars = || stars.iter().filter(|star| caller.sees(&star.service.namespace));
        let apps = control.apps().await?.into_iter().filter(|view| caller.sees(&view.app.namespace));
        let services = control.services().await?.into_iter().filter(|view| caller.sees(&view.service.namespace));
        status.node.apps = apps.count() as u64;
        status.node.services = services.count() as u64;
        status.node.stars = stars().filter(|star| star.phase != StarPhase::Ended).count() as u64;
        status.node.ready = stars().filter(|star| star.phase == StarPhase::Ready).count() as u64;
    }
    Ok(Json(status))
}

/// Wait for the log to move on
///
/// Read the index, read what you care about, then wait here for something newer: nothing is missed in between.
#[utoipa::path(get, path = "/v1/index", tag = "node", params(After), responses(
    (status = 200, body = Index), (status = "default", body = Problem)))]
pub(super) async fn index(Asked(control): Asked, Query(after): Query<After>) -> Reply<Index> {
    Ok(Json(control.index(after).await?))
}

/// What happened
#[utoipa::path(get, path = "/v1/events", tag = "node", params(After), responses(
    (status = 200, body = Events), (status = "default", body = Problem)))]
pub(super) async fn events(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Query(after): Query<After>,
) -> Reply<Events> {
    let mut events = control.events(after).await?;
    if !caller.rights.namespaces.is_all() {
        events.events.retain(|event| {
            let of_service = event.service.as_ref().map(|service| &service.namespace);
            // What is about nothing of a namespace is about all.
            let of_app = event.app.as_ref().map(|app| &app.namespace);
            let namespace = of_service.or(of_app).or(event.namespace.as_ref());
            namespace.is_some_and(|namespace| caller.sees(namespace))
        });
    }
    Ok(Json(events))
}

/// Watch what changes, one JSON object a line
///
/// Each line has the keys that one command of the log changed, in the order of the log, without gap or repetition. A line
/// without keys comes every few seconds: resume from the last index that came, here or at any other node. Answers 410, with the oldest index
/// there is, when `from` is from before what is kept: look at everything anew then.
#[utoipa::path(get, path = "/v1/watch", tag = "node", params(WatchQuery), responses(
    (status = 200, body = WatchLine, content_type = "application/x-ndjson"), (status = "default", body = Problem)))]
pub(super) async fn watch(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Refusal> {
    let told = control.watch(query).await?;
    Ok(match caller.rights.namespaces.is_all() {
        true => lines(told),
        false => lines(told.map(move |line| line.map(|line| line.of_namespaces(|name| caller.sees(name))))),
    })
}

/// End the agent
#[utoipa::path(post, path = "/v1/shutdown", tag = "node", request_body = Shutdown, responses(
    (status = 200, description = "the agent ends now"), (status = "default", body = Problem)))]
pub(super) async fn shutdown(Asked(control): Asked, Body(shutdown): Body<Shutdown>) -> Reply<()> {
    Ok(Json(control.shutdown(shutdown).await?))
}

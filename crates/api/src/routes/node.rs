//! The node itself: version, status, log index, events, and its end.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use model::Problem;

use super::{Shared, lines};
use crate::refusal::{Body, Query, Refusal, Reply};
use crate::types::{After, Events, Index, Shutdown, Status, Version};
use crate::watch::{WatchLine, WatchQuery};

/// Who answers
#[utoipa::path(get, path = "/v1/version", tag = "node", responses((status = 200, body = Version)))]
pub(super) async fn version(State(control): Shared) -> Json<Version> {
    Json(control.version())
}

/// What the node is and how it is
#[utoipa::path(get, path = "/v1/status", tag = "node", responses(
    (status = 200, body = Status), (status = "default", body = Problem)))]
pub(super) async fn status(State(control): Shared) -> Reply<Status> {
    Ok(Json(control.status().await?))
}

/// Wait for the log to move on
///
/// Read the index, read what you care about, then wait here for something newer: nothing is missed in between.
#[utoipa::path(get, path = "/v1/index", tag = "node", params(After), responses(
    (status = 200, body = Index), (status = "default", body = Problem)))]
pub(super) async fn index(State(control): Shared, Query(after): Query<After>) -> Reply<Index> {
    Ok(Json(control.index(after).await?))
}

/// What happened
#[utoipa::path(get, path = "/v1/events", tag = "node", params(After), responses(
    (status = 200, body = Events), (status = "default", body = Problem)))]
pub(super) async fn events(State(control): Shared, Query(after): Query<After>) -> Reply<Events> {
    Ok(Json(control.events(after).await?))
}

/// Watch what changes, one JSON object a line
///
/// Each line has the keys that one command of the log changed, in the order of the log, without gap or repetition. A line
/// without keys comes every few seconds: resume from the last index that came, here or at any other node. Answers 410, with the oldest index
/// there is, when `from` is from before what is kept: look at everything anew then.
#[utoipa::path(get, path = "/v1/watch", tag = "node", params(WatchQuery), responses(
    (status = 200, body = WatchLine, content_type = "application/x-ndjson"), (status = "default", body = Problem)))]
pub(super) async fn watch(State(control): Shared, Query(query): Query<WatchQuery>) -> Result<Response, Refusal> {
    Ok(lines(control.watch(query).await?))
}

/// End the agent
#[utoipa::path(post, path = "/v1/shutdown", tag = "node", request_body = Shutdown, responses(
    (status = 200, description = "the agent ends now"), (status = "default", body = Problem)))]
pub(super) async fn shutdown(State(control): Shared, Body(shutdown): Body<Shutdown>) -> Reply<()> {
    Ok(Json(control.shutdown(shutdown).await?))
}

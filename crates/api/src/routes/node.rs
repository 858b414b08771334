//! The node itself: version, status, log index, events, and its end.

use axum::Json;
use axum::extract::State;
use model::Problem;

use super::Shared;
use crate::refusal::{Body, Query, Reply};
use crate::types::{After, Events, Index, Shutdown, Status, Version};

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

/// End the agent
#[utoipa::path(post, path = "/v1/shutdown", tag = "node", request_body = Shutdown, responses(
    (status = 200, description = "the agent ends now"), (status = "default", body = Problem)))]
pub(super) async fn shutdown(State(control): Shared, Body(shutdown): Body<Shutdown>) -> Reply<()> {
    Ok(Json(control.shutdown(shutdown).await?))
}

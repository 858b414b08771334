//! Stars, their counters and their logs.

use axum::Json;
use axum::extract::ConnectInfo;
use axum::response::Response;
use model::{Code, Problem, StarId};

use super::{Asked, lines};
use crate::control::Caller;
use crate::refusal::{Path, Query, Refusal, Reply};
use crate::types::{Inspection, LogQuery, LogRecord, StarStats, StarView, TAIL_MAX};

/// Every star, ended ones included as long as they are kept
#[utoipa::path(get, path = "/v1/stars", tag = "stars", responses(
    (status = 200, body = Vec<StarView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<StarView>> {
    let mut views = control.stars().await?;
    views.retain(|view| caller.sees(&view.service.namespace));
    Ok(Json(views))
}

/// One star
#[utoipa::path(get, path = "/v1/stars/{star}", tag = "stars", params(("star" = StarId, Path)), responses(
    (status = 200, body = StarView), (status = "default", body = Problem)))]
pub(super) async fn get(Asked(control): Asked, Path(star): Path<StarId>) -> Reply<StarView> {
    Ok(Json(control.star(star).await?))
}

/// Everything that is known of a star
#[utoipa::path(get, path = "/v1/stars/{star}/inspect", tag = "stars", params(("star" = StarId, Path)), responses(
    (status = 200, body = Inspection), (status = "default", body = Problem)))]
pub(super) async fn inspect(Asked(control): Asked, Path(star): Path<StarId>) -> Reply<Inspection> {
    Ok(Json(control.inspect(star).await?))
}

/// What a star uses
#[utoipa::path(get, path = "/v1/stars/{star}/stats", tag = "stars", params(("star" = StarId, Path)), responses(
    (status = 200, body = StarStats), (status = "default", body = Problem)))]
pub(super) async fn stats(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(star): Path<StarId>,
) -> Reply<StarStats> {
    Ok(Json(control.star_stats(star, caller).await?))
}

/// Logs, one JSON object a line
#[utoipa::path(get, path = "/v1/logs", tag = "stars", params(LogQuery), responses(
    (status = 200, body = LogRecord, content_type = "application/x-ndjson"), (status = "default", body = Problem)))]
pub(super) async fn logs(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    if query.tail.is_some_and(|tail| tail > TAIL_MAX) {
        return Err(Refusal(Problem::new(Code::InvalidValue, format!("`tail` is at most {TAIL_MAX}"))));
    }
    Ok(lines(control.logs(query, caller).await?))
}

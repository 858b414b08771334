//! Services: named groups of stars.

use axum::Json;
use axum::extract::ConnectInfo;
use model::{LimitsChange, Problem, RolloutTurn, ServiceKey};

use super::Asked;
use crate::control::Caller;
use crate::refusal::{Body, Path, Reply};
use crate::types::{
    Accepted, ExplainView, MoveView, Passed, Rollback, RunsView, Scale, ServiceView, StarStats, StarTurn, VersionView,
};

/// Every service
#[utoipa::path(get, path = "/v1/services", tag = "services", responses(
    (status = 200, body = Vec<ServiceView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<ServiceView>> {
    let mut views = control.services().await?;
    views.retain(|view| caller.sees(&view.service.namespace));
    Ok(Json(views))
}

/// One service
#[utoipa::path(get, path = "/v1/services/{service}", tag = "services", params(("service" = ServiceKey, Path)),
    responses((status = 200, body = ServiceView), (status = "default", body = Problem)))]
pub(super) async fn get(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<ServiceView> {
    Ok(Json(control.service(service).await?))
}

/// Stars that would better be on another machine
///
/// The moves after which services are spread as their placement says, at most 1,000. `POST` of `move` to a star carries one out.
#[utoipa::path(get, path = "/v1/moves", tag = "services", responses(
    (status = 200, body = Vec<MoveView>), (status = "default", body = Problem)))]
pub(super) async fn moves(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<MoveView>> {
    let mut views = control.moves().await?;
    views.retain(|view| caller.sees(&view.service.namespace));
    Ok(Json(views))
}

/// Why the stars of a service are where they are
///
/// Machine by machine: what keeps its next star off it, or that it would come there.
#[utoipa::path(get, path = "/v1/services/{service}/explain", tag = "services", params(("service" = ServiceKey, Path)),
    responses((status = 200, body = ExplainView), (status = "default", body = Problem)))]
pub(super) async fn explain(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<ExplainView> {
    Ok(Json(control.explain(service).await?))
}

/// What the stars of a service use and have answered
#[utoipa::path(get, path = "/v1/services/{service}/stats", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Vec<StarStats>), (status = "default", body = Problem)))]
pub(super) async fn stats(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(service): Path<ServiceKey>,
) -> Reply<Vec<StarStats>> {
    Ok(Json(control.service_stats(service, caller).await?))
}

/// What this node has passed on to the stars of a service
///
/// Each node counts what comes in by its own entry points; `stats` adds up those of all.
#[utoipa::path(get, path = "/v1/services/{service}/passed", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Vec<Passed>), (status = "default", body = Problem)))]
pub(super) async fn passed(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Vec<Passed>> {
    Ok(Json(control.passed(service).await?))
}

/// Change what running stars may use
///
/// Answered when every star has the new limits, or one cannot have them. A field that is absent stays as it is, one that
/// is `null` becomes unlimited.
#[utoipa::path(post, path = "/v1/services/{service}/limits", tag = "services",
    params(("service" = ServiceKey, Path)), request_body = LimitsChange,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn limit(
    Asked(control): Asked,
    Path(service): Path<ServiceKey>,
    Body(change): Body<LimitsChange>,
) -> Reply<Accepted> {
    Ok(Json(control.limit(service, change).await?))
}

/// Change how many stars run
#[utoipa::path(post, path = "/v1/services/{service}/scale", tag = "services",
    params(("service" = ServiceKey, Path)), request_body = Scale,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn scale(
    Asked(control): Asked,
    Path(service): Path<ServiceKey>,
    Body(scale): Body<Scale>,
) -> Reply<Accepted> {
    Ok(Json(control.scale(service, scale.instances).await?))
}

/// Let every star stand still
///
/// It keeps its memory and gets no processor time and no requests.
#[utoipa::path(post, path = "/v1/services/{service}/pause", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn pause(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.pause(service).await?))
}

/// Let the stars of a paused service go on
#[utoipa::path(post, path = "/v1/services/{service}/resume", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn resume(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.resume(service).await?))
}

/// Replace every star, one after another
#[utoipa::path(post, path = "/v1/services/{service}/restart", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn restart(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.restart(service).await?))
}

/// The runs of a job that are kept, and when the next is due
#[utoipa::path(get, path = "/v1/services/{service}/runs", tag = "services", params(("service" = ServiceKey, Path)),
    responses((status = 200, body = RunsView), (status = "default", body = Problem)))]
pub(super) async fn runs(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<RunsView> {
    Ok(Json(control.runs(service).await?))
}

/// Begin a run of a job
#[utoipa::path(post, path = "/v1/services/{service}/runs", tag = "services", params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn run(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.run(service).await?))
}

/// The versions of a service that are kept, the present one last
#[utoipa::path(get, path = "/v1/services/{service}/versions", tag = "services", params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Vec<VersionView>), (status = "default", body = Problem)))]
pub(super) async fn versions(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Vec<VersionView>> {
    Ok(Json(control.versions(service).await?))
}

/// Make a service what it was in an earlier version
///
/// Without a version it is the last good one before the present. It comes back as a version of its own, and keeps the number of stars
/// that the service has.
#[utoipa::path(post, path = "/v1/services/{service}/rollback", tag = "services",
    params(("service" = ServiceKey, Path)), request_body = Rollback,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn roll_back(
    Asked(control): Asked,
    Path(service): Path<ServiceKey>,
    Body(rollback): Body<Rollback>,
) -> Reply<Accepted> {
    Ok(Json(control.roll_back(service, rollback.version).await?))
}

/// Have a say in the roll-out that is under way: promote what is tried, go back, hold it, let it go on
#[utoipa::path(post, path = "/v1/services/{service}/rollout/{turn}", tag = "services",
    params(("service" = ServiceKey, Path), ("turn" = RolloutTurn, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn turn_rollout(
    Asked(control): Asked,
    Path((service, turn)): Path<(ServiceKey, RolloutTurn)>,
) -> Reply<Accepted> {
    Ok(Json(control.turn_rollout(service, turn).await?))
}

/// End every star and keep the service known
#[utoipa::path(post, path = "/v1/services/{service}/stop", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn stop(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.stop(service).await?))
}

/// Start a stopped service
#[utoipa::path(post, path = "/v1/services/{service}/start", tag = "services",
    params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn start(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.start(service).await?))
}

/// Take a service out of its app
///
/// Its stars end; an app whose last service it was is gone with it.
#[utoipa::path(delete, path = "/v1/services/{service}", tag = "services", params(("service" = ServiceKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove(Asked(control): Asked, Path(service): Path<ServiceKey>) -> Reply<Accepted> {
    Ok(Json(control.remove_service(service).await?))
}

/// Stop, start, restart or move one star by the number in its name
#[utoipa::path(post, path = "/v1/services/{service}/stars/{ordinal}/{turn}", tag = "services",
    params(("service" = ServiceKey, Path), ("ordinal" = u32, Path), ("turn" = StarTurn, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn turn(
    Asked(control): Asked,
    Path((service, ordinal, turn)): Path<(ServiceKey, u32, StarTurn)>,
) -> Reply<Accepted> {
    Ok(Json(control.turn(service, ordinal, turn).await?))
}

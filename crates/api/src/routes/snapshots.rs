//! Snapshots: what stars wrote, kept and brought back.

use axum::Json;
use axum::extract::State;
use model::{Name, Problem, ServiceKey};

use super::Shared;
use crate::refusal::{Body, Path, Reply};
use crate::types::{RestoreSnapshot, SnapshotTaken, SnapshotView, TakeSnapshot};

/// Keep the files of a service's volumes
///
/// Its stars, and others that use the volumes, stand still for the moment that counts. With `memory` that of its star is kept
/// with them.
#[utoipa::path(post, path = "/v1/services/{service}/snapshots", tag = "snapshots",
    params(("service" = ServiceKey, Path)), request_body = TakeSnapshot,
    responses((status = 200, body = SnapshotTaken), (status = "default", body = Problem)))]
pub(super) async fn take(
    State(control): Shared,
    Path(service): Path<ServiceKey>,
    Body(take): Body<TakeSnapshot>,
) -> Reply<SnapshotTaken> {
    Ok(Json(control.take_snapshot(service, take).await?))
}

/// Every snapshot
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", responses(
    (status = 200, body = Vec<SnapshotView>), (status = "default", body = Problem)))]
pub(super) async fn list(State(control): Shared) -> Reply<Vec<SnapshotView>> {
    Ok(Json(control.snapshots().await?))
}

/// One snapshot
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", tag = "snapshots", params(("snapshot" = Name, Path)),
    responses((status = 200, body = SnapshotView), (status = "default", body = Problem)))]
pub(super) async fn get(State(control): Shared, Path(snapshot): Path<Name>) -> Reply<SnapshotView> {
    Ok(Json(control.snapshot(snapshot).await?))
}

/// Remove a snapshot
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots", params(("snapshot" = Name, Path)),
    responses((status = 200), (status = "default", body = Problem)))]
pub(super) async fn delete(State(control): Shared, Path(snapshot): Path<Name>) -> Reply<()> {
    Ok(Json(control.delete_snapshot(snapshot).await?))
}

/// Give a service's volumes the files of a snapshot
///
/// What is in them then is gone. Refused while a service that uses them is not stopped. With a memory, the service is started:
/// its star goes on from it.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/restore", tag = "snapshots", params(("snapshot" = Name, Path)),
    request_body = RestoreSnapshot,
    responses((status = 200, body = SnapshotView), (status = "default", body = Problem)))]
pub(super) async fn restore(
    State(control): Shared,
    Path(snapshot): Path<Name>,
    Body(restore): Body<RestoreSnapshot>,
) -> Reply<SnapshotView> {
    Ok(Json(control.restore_snapshot(snapshot, restore).await?))
}

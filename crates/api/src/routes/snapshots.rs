//! Snapshots: what stars wrote, kept and brought back.

use axum::Json;
use axum::extract::ConnectInfo;
use model::access::Place;
use model::{Name, Problem, ServiceKey, Verb};

use super::Asked;
use crate::control::Caller;
use crate::refusal::{Body, Path, Refusal, Reply};
use crate::types::{RestoreSnapshot, SnapshotTaken, SnapshotView, TakeSnapshot};

/// Keep the files of a service's volumes
///
/// Its stars, and others that use the volumes, stand still for the moment that counts. With `memory` that of its star is kept
/// with them.
#[utoipa::path(post, path = "/v1/services/{service}/snapshots", tag = "snapshots",
    params(("service" = ServiceKey, Path)), request_body = TakeSnapshot,
    responses((status = 200, body = SnapshotTaken), (status = "default", body = Problem)))]
pub(super) async fn take(
    Asked(control): Asked,
    Path(service): Path<ServiceKey>,
    Body(take): Body<TakeSnapshot>,
) -> Reply<SnapshotTaken> {
    Ok(Json(control.take_snapshot(service, take).await?))
}

/// Every snapshot
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", responses(
    (status = 200, body = Vec<SnapshotView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<SnapshotView>> {
    let mut views = control.snapshots().await?;
    views.retain(|view| caller.sees(&view.service.namespace));
    Ok(Json(views))
}

/// One snapshot
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", tag = "snapshots", params(("snapshot" = Name, Path)),
    responses((status = 200, body = SnapshotView), (status = "default", body = Problem)))]
pub(super) async fn get(Asked(control): Asked, Path(snapshot): Path<Name>) -> Reply<SnapshotView> {
    Ok(Json(control.snapshot(snapshot).await?))
}

/// Remove a snapshot
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots", params(("snapshot" = Name, Path)),
    responses((status = 200), (status = "default", body = Problem)))]
pub(super) async fn delete(Asked(control): Asked, Path(snapshot): Path<Name>) -> Reply<()> {
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
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(snapshot): Path<Name>,
    Body(restore): Body<RestoreSnapshot>,
) -> Reply<SnapshotView> {
    // Its own namespace is one of theirs; those of the services it is for may be others.
    for service in restore.service.iter().chain(&restore.starts_again) {
        if let Err(problem) = caller.check(Verb::Snapshot, Place::In(&service.namespace)) {
            control.denied(Verb::Snapshot, format!("restore snapshot `{snapshot}` for service `{service}`"));
            return Err(Refusal(problem));
        }
    }
    Ok(Json(control.restore_snapshot(snapshot, restore).await?))
}

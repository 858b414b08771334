//! Volumes: where they lie, and the end of those that nobody has.

use axum::Json;
use axum::extract::{ConnectInfo, State};
use model::{Problem, VolumeKey};

use super::Shared;
use crate::control::Caller;
use crate::refusal::{Path, Reply};
use crate::types::VolumeView;

/// Every volume
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", responses(
    (status = 200, body = Vec<VolumeView>), (status = "default", body = Problem)))]
pub(super) async fn list(State(control): Shared, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<VolumeView>> {
    Ok(Json(control.volumes(caller).await?))
}

/// Delete a volume and its files
///
/// Refused while a service names it. Its files are gone for good; snapshots of them stay.
#[utoipa::path(delete, path = "/v1/volumes/{volume}", tag = "volumes", params(("volume" = VolumeKey, Path)),
    responses((status = 200), (status = "default", body = Problem)))]
pub(super) async fn remove(State(control): Shared, Path(volume): Path<VolumeKey>) -> Reply<()> {
    Ok(Json(control.delete_volume(volume).await?))
}

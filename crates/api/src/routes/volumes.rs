//! Volumes: where they lie, and the end of those that nobody has.

use axum::Json;
use axum::extract::ConnectInfo;
use model::{Problem, VolumeKey};

use super::Asked;
use crate::control::Caller;
use crate::refusal::{Path, Reply};
use crate::types::VolumeView;

/// Every volume
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", responses(
    (status = 200, body = Vec<VolumeView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<VolumeView>> {
    let mut views = control.volumes(caller.clone()).await?;
    views.retain(|view| caller.sees(&view.volume.namespace));
    Ok(Json(views))
}

/// Delete a volume and its files
///
/// Refused while a service names it. Its files are gone for good; snapshots of them stay.
#[utoipa::path(delete, path = "/v1/volumes/{volume}", tag = "volumes", params(("volume" = VolumeKey, Path)),
    responses((status = 200), (status = "default", body = Problem)))]
pub(super) async fn remove(Asked(control): Asked, Path(volume): Path<VolumeKey>) -> Reply<()> {
    Ok(Json(control.delete_volume(volume).await?))
}

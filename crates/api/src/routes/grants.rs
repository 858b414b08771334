//! Who may use the constellation from outside, and who did what.

use axum::Json;
use model::{Name, Problem};

use super::Asked;
use crate::grants::{AuditView, GrantView, Granted, NewGrant};
use crate::refusal::{Body, Path, Query, Reply};
use crate::types::After;

/// Let somebody use the constellation from outside
///
/// The token is told here and nowhere else. On a controller only.
#[utoipa::path(post, path = "/v1/grants", tag = "access", request_body = NewGrant, responses(
    (status = 200, body = Granted), (status = "default", body = Problem)))]
pub(super) async fn add(Asked(control): Asked, Body(grant): Body<NewGrant>) -> Reply<Granted> {
    Ok(Json(control.grant(grant).await?))
}

/// Every grant, those that are over included as long as they are kept
#[utoipa::path(get, path = "/v1/grants", tag = "access", responses(
    (status = 200, body = Vec<GrantView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked) -> Reply<Vec<GrantView>> {
    Ok(Json(control.grants().await?))
}

/// End a grant
///
/// Its open connections end within seconds, on every node. On a controller only.
#[utoipa::path(delete, path = "/v1/grants/{grant}", tag = "access", params(("grant" = Name, Path)), responses(
    (status = 200, body = GrantView), (status = "default", body = Problem)))]
pub(super) async fn revoke(Asked(control): Asked, Path(grant): Path<Name>) -> Reply<GrantView> {
    Ok(Json(control.revoke_grant(grant).await?))
}

/// Who did what
///
/// Records after the number `after`, oldest first, each with a hash of itself and of the hash before.
#[utoipa::path(get, path = "/v1/audit", tag = "access", params(After), responses(
    (status = 200, body = AuditView), (status = "default", body = Problem)))]
pub(super) async fn audit(Asked(control): Asked, Query(after): Query<After>) -> Reply<AuditView> {
    Ok(Json(control.audit(after).await?))
}

//! Who may come in, and who is believed.

use axum::Json;
use model::{NodeId, Problem};

use super::Asked;
use crate::certs::{CertificatesView, Invite, TokenView};
use crate::constellation::Invitation;
use crate::refusal::{Body, Path, Reply};

/// Invite machines
///
/// The token is told here and nowhere else. On a controller only.
#[utoipa::path(post, path = "/v1/tokens", tag = "constellation", request_body = Invite, responses(
    (status = 200, body = Invitation), (status = "default", body = Problem)))]
pub(super) async fn invite(Asked(control): Asked, Body(invite): Body<Invite>) -> Reply<Invitation> {
    Ok(Json(control.invite(invite).await?))
}

/// Every token that is still good for something
#[utoipa::path(get, path = "/v1/tokens", tag = "constellation", responses(
    (status = 200, body = Vec<TokenView>), (status = "default", body = Problem)))]
pub(super) async fn tokens(Asked(control): Asked) -> Reply<Vec<TokenView>> {
    Ok(Json(control.tokens().await?))
}

/// Take a token back
///
/// By its id, of which eight digits or more are enough. Machines that joined by it stay. On a controller only.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "constellation", params(("token" = String, Path)),
    responses((status = 200, body = TokenView), (status = "default", body = Problem)))]
pub(super) async fn revoke_token(Asked(control): Asked, Path(token): Path<String>) -> Reply<TokenView> {
    Ok(Json(control.revoke_token(token).await?))
}

/// Every authority and the newest certificate of every node
#[utoipa::path(get, path = "/v1/certificates", tag = "constellation", responses(
    (status = 200, body = CertificatesView), (status = "default", body = Problem)))]
pub(super) async fn certificates(Asked(control): Asked) -> Reply<CertificatesView> {
    Ok(Json(control.certificates().await?))
}

/// Begin to change the authority
///
/// All trust the next one from here on; it issues, and the present one goes, by themselves. On a controller only.
#[utoipa::path(post, path = "/v1/certificates/rotate", tag = "constellation", responses(
    (status = 200, body = CertificatesView), (status = "default", body = Problem)))]
pub(super) async fn rotate(Asked(control): Asked) -> Reply<CertificatesView> {
    Ok(Json(control.rotate_authority().await?))
}

/// Shut a node out
///
/// Nothing it was given is believed any more; its connections end within seconds. On a controller only.
#[utoipa::path(delete, path = "/v1/nodes/{node}/certificates", tag = "constellation", params(("node" = NodeId, Path)),
    responses((status = 200, body = CertificatesView), (status = "default", body = Problem)))]
pub(super) async fn revoke(Asked(control): Asked, Path(node): Path<NodeId>) -> Reply<CertificatesView> {
    Ok(Json(control.revoke_certificates(node).await?))
}

/// Begin to change the key that gossip is sealed with
///
/// All get the next one; it seals, and the present one goes, by themselves. On a controller only.
#[utoipa::path(post, path = "/v1/gossip-keys/rotate", tag = "constellation", responses(
    (status = 200, body = CertificatesView), (status = "default", body = Problem)))]
pub(super) async fn rotate_gossip(Asked(control): Asked) -> Reply<CertificatesView> {
    Ok(Json(control.rotate_gossip().await?))
}

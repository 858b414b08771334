//! Secrets: values come in, names go out, and a value to whoever asks for it by name.

use axum::Json;
use axum::body::{Body as RawBody, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::header;
use axum::response::IntoResponse;
use model::secret::SECRET_MAX;
use model::{Code, Problem, SecretKey, SecretView};

use super::Asked;
use crate::control::Caller;
use crate::refusal::{Path, Refusal, Reply};
use crate::types::Accepted;

/// Every secret, without its value
#[utoipa::path(get, path = "/v1/secrets", tag = "secrets", responses(
    (status = 200, body = Vec<SecretView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<SecretView>> {
    let mut views = control.secrets().await?;
    views.retain(|view| caller.sees(&view.secret.namespace));
    Ok(Json(views))
}

/// A secret's value
///
/// Byte by byte. Who read it is among the events before it is given.
#[utoipa::path(get, path = "/v1/secrets/{secret}", tag = "secrets", params(("secret" = SecretKey, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem)))]
pub(super) async fn get(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(secret): Path<SecretKey>,
) -> Result<impl IntoResponse, Refusal> {
    let value = control.secret(secret, caller).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")], value))
}

/// Set a secret's value
///
/// The body is the value, byte by byte. Stars that run keep the value they have.
#[utoipa::path(put, path = "/v1/secrets/{secret}", tag = "secrets", params(("secret" = SecretKey, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn put(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(secret): Path<SecretKey>,
    request: Request,
) -> Reply<Accepted> {
    let body: RawBody = request.into_body();
    let value = to_bytes(body, SECRET_MAX.0 as usize).await.map_err(|_| {
        Refusal(Problem::new(Code::InvalidValue, format!("a secret has at most {SECRET_MAX}, and this is more")))
    })?;
    Ok(Json(control.put_secret(secret, value, caller).await?))
}

/// Delete a secret that no service names
#[utoipa::path(delete, path = "/v1/secrets/{secret}", tag = "secrets", params(("secret" = SecretKey, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove(Asked(control): Asked, Path(secret): Path<SecretKey>) -> Reply<Accepted> {
    Ok(Json(control.delete_secret(secret).await?))
}

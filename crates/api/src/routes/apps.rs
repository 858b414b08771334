//! Apps: what a user described as a whole.

use axum::Json;
use axum::extract::State;
use model::{AppKey, Code, Problem};

use super::Shared;
use crate::check;
use crate::refusal::{Body, Path, Refusal, Reply};
use crate::types::{Accepted, AppView, PutApp};

/// Every app
#[utoipa::path(get, path = "/v1/apps", tag = "apps", responses(
    (status = 200, body = Vec<AppView>), (status = "default", body = Problem)))]
pub(super) async fn list(State(control): Shared) -> Reply<Vec<AppView>> {
    Ok(Json(control.apps().await?))
}

/// One app
#[utoipa::path(get, path = "/v1/apps/{app}", tag = "apps", params(("app" = AppKey, Path)), responses(
    (status = 200, body = AppView), (status = "default", body = Problem)))]
pub(super) async fn get(State(control): Shared, Path(app): Path<AppKey>) -> Reply<AppView> {
    Ok(Json(control.app(app).await?))
}

/// Put an app in place of what runs under its name
#[utoipa::path(put, path = "/v1/apps/{app}", tag = "apps", params(("app" = AppKey, Path)), request_body = PutApp,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn put(State(control): Shared, Path(app): Path<AppKey>, Body(put): Body<PutApp>) -> Reply<Accepted> {
    if put.spec.app != app {
        let message = format!("the path names the app `{app}`, the body `{}`", put.spec.app);
        return Err(Refusal(Problem::new(Code::InvalidValue, message)));
    }
    check::spec(&put.spec)?;
    Ok(Json(control.put_app(put.spec, put.base).await?))
}

/// Take an app down
#[utoipa::path(delete, path = "/v1/apps/{app}", tag = "apps", params(("app" = AppKey, Path)), responses(
    (status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove(State(control): Shared, Path(app): Path<AppKey>) -> Reply<Accepted> {
    Ok(Json(control.remove_app(app).await?))
}

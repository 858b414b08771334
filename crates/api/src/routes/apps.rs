//! Apps: what a user described as a whole.

use axum::Json;
use axum::extract::ConnectInfo;
use model::access::Place;
use model::{AppKey, AppSpec, Code, Problem, Verb};

use super::Asked;
use crate::check;
use crate::control::Caller;
use crate::refusal::{Body, Path, Refusal, Reply};
use crate::types::{Accepted, AppView, Forecast, PutApp};

/// Every app
#[utoipa::path(get, path = "/v1/apps", tag = "apps", responses(
    (status = 200, body = Vec<AppView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<AppView>> {
    let mut views = control.apps().await?;
    views.retain(|view| caller.sees(&view.app.namespace));
    Ok(Json(views))
}

/// One app
#[utoipa::path(get, path = "/v1/apps/{app}", tag = "apps", params(("app" = AppKey, Path)), responses(
    (status = 200, body = AppView), (status = "default", body = Problem)))]
pub(super) async fn get(Asked(control): Asked, Path(app): Path<AppKey>) -> Reply<AppView> {
    Ok(Json(control.app(app).await?))
}

/// Put an app in place of what runs under its name
#[utoipa::path(put, path = "/v1/apps/{app}", tag = "apps", params(("app" = AppKey, Path)), request_body = PutApp,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn put(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(app): Path<AppKey>,
    Body(put): Body<PutApp>,
) -> Reply<Accepted> {
    check_body(&app, &put)?;
    if let Err(problem) = check_may_weaken(&caller, &put.spec) {
        control.denied(Verb::Weaken, format!("put app `{app}` with weaker walls"));
        return Err(Refusal(problem));
    }
    Ok(Json(control.put_app(put.spec, put.base).await?))
}

/// What putting an app would come to
///
/// Whether it would be refused, and which machines its stars would come to, as things are. Nothing is changed.
#[utoipa::path(post, path = "/v1/apps/{app}/forecast", tag = "apps", params(("app" = AppKey, Path)), request_body = PutApp,
    responses((status = 200, body = Forecast), (status = "default", body = Problem)))]
pub(super) async fn forecast(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(app): Path<AppKey>,
    Body(put): Body<PutApp>,
) -> Reply<Forecast> {
    check_body(&app, &put)?;
    if let Err(problem) = check_may_weaken(&caller, &put.spec) {
        return Ok(Json(Forecast { refused: Some(problem), ..Forecast::default() }));
    }
    Ok(Json(control.forecast(put.spec, put.base).await?))
}

/// A star that could get out of its namespace is of all of them.
fn check_may_weaken(caller: &Caller, spec: &AppSpec) -> Result<(), Problem> {
    match spec.services.values().any(|service| !service.template.missing_walls().is_empty()) {
        true => caller.check(Verb::Weaken, Place::All),
        false => Ok(()),
    }
}

fn check_body(app: &AppKey, put: &PutApp) -> Result<(), Problem> {
    if put.spec.app != *app {
        let message = format!("the path names the app `{app}`, the body `{}`", put.spec.app);
        return Err(Problem::new(Code::InvalidValue, message));
    }
    check::spec(&put.spec)
}

/// Take an app down
#[utoipa::path(delete, path = "/v1/apps/{app}", tag = "apps", params(("app" = AppKey, Path)), responses(
    (status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove(Asked(control): Asked, Path(app): Path<AppKey>) -> Reply<Accepted> {
    Ok(Json(control.remove_app(app).await?))
}

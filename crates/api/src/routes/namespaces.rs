//! Namespaces: which there are, until when, what each may have and has.

use axum::Json;
use axum::extract::ConnectInfo;
use model::{Name, NamespaceChange, Problem};

use super::Asked;
use crate::control::Caller;
use crate::refusal::{Body, Path, Query, Reply};
use crate::types::{Accepted, NamespaceRemoval, NamespaceView};

/// Every namespace
///
/// Those that were made, and those in which something is.
#[utoipa::path(get, path = "/v1/namespaces", tag = "namespaces", responses(
    (status = 200, body = Vec<NamespaceView>), (status = "default", body = Problem)))]
pub(super) async fn list(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<Vec<NamespaceView>> {
    let mut views = control.namespaces().await?;
    views.retain(|view| caller.sees(&view.namespace));
    Ok(Json(views))
}

/// One namespace
#[utoipa::path(get, path = "/v1/namespaces/{namespace}", tag = "namespaces", params(("namespace" = Name, Path)),
    responses((status = 200, body = NamespaceView), (status = "default", body = Problem)))]
pub(super) async fn get(Asked(control): Asked, Path(namespace): Path<Name>) -> Reply<NamespaceView> {
    Ok(Json(control.namespace(namespace).await?))
}

/// Make a namespace
///
/// Refused when it is there. One in which something is comes into being by itself; made, it is there when it is empty too.
#[utoipa::path(put, path = "/v1/namespaces/{namespace}", tag = "namespaces", params(("namespace" = Name, Path)),
    request_body = NamespaceChange, responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn create(
    Asked(control): Asked,
    Path(namespace): Path<Name>,
    Body(change): Body<NamespaceChange>,
) -> Reply<Accepted> {
    Ok(Json(control.set_namespace(namespace, change, true).await?))
}

/// Say when a namespace ends, and what it may have
///
/// A field that is absent stays as it is, one that is `null` is taken away. A quota below what is used takes nothing away; nothing
/// grows beyond it.
#[utoipa::path(post, path = "/v1/namespaces/{namespace}", tag = "namespaces", params(("namespace" = Name, Path)),
    request_body = NamespaceChange, responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn set(
    Asked(control): Asked,
    Path(namespace): Path<Name>,
    Body(change): Body<NamespaceChange>,
) -> Reply<Accepted> {
    Ok(Json(control.set_namespace(namespace, change, false).await?))
}

/// Take a namespace away
///
/// Its apps and secrets go with it, its volumes stay. Refused while there are any apps or secrets, unless it is forced.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace}", tag = "namespaces",
    params(("namespace" = Name, Path), NamespaceRemoval),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove(
    Asked(control): Asked,
    Path(namespace): Path<Name>,
    Query(NamespaceRemoval { force }): Query<NamespaceRemoval>,
) -> Reply<Accepted> {
    Ok(Json(control.delete_namespace(namespace, force).await?))
}

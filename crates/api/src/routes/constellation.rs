//! The machines that are a constellation together.

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::ConnectInfo;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use model::{NodeId, Overcommit, Problem, Taint};

use super::Asked;
use crate::constellation::{Became, Init, Join, NodeView, Removal, SetDuty, Survey};
use crate::control::Caller;
use crate::refusal::{Body, Path, Query, Refusal, Reply};
use crate::types::{Accepted, ResourcesView};

/// Found a constellation
///
/// This machine becomes its first node; what runs on it runs on. The agent begins anew right after the answer.
#[utoipa::path(post, path = "/v1/constellation/init", tag = "constellation", request_body = Init, responses(
    (status = 200, body = Became), (status = "default", body = Problem)))]
pub(super) async fn init(Asked(control): Asked, Body(init): Body<Init>) -> Reply<Became> {
    Ok(Json(control.init(init).await?))
}

/// Join a constellation
///
/// Refused while anything runs here. The agent begins anew right after the answer.
#[utoipa::path(post, path = "/v1/constellation/join", tag = "constellation", request_body = Join, responses(
    (status = 200, body = Became), (status = "default", body = Problem)))]
pub(super) async fn join(Asked(control): Asked, Body(join): Body<Join>) -> Reply<Became> {
    Ok(Json(control.join(join).await?))
}

/// Leave the constellation
///
/// Refused while volumes lie here, unless it is forced: then they are known to it no more. Stars that are still here end. The agent
/// begins anew, alone, right after the answer.
#[utoipa::path(post, path = "/v1/constellation/leave", tag = "constellation", params(Removal), responses(
    (status = 200, description = "this machine is alone again"), (status = "default", body = Problem)))]
pub(super) async fn leave(Asked(control): Asked, Query(Removal { force }): Query<Removal>) -> Reply<()> {
    Ok(Json(control.leave(force).await?))
}

/// Every node
#[utoipa::path(get, path = "/v1/nodes", tag = "constellation", responses(
    (status = 200, body = Vec<NodeView>), (status = "default", body = Problem)))]
pub(super) async fn nodes(Asked(control): Asked) -> Reply<Vec<NodeView>> {
    Ok(Json(control.nodes().await?))
}

/// The resources of all nodes as one pool
///
/// What there is, what is kept for the machines themselves and for stars, what could be kept for more, what is promised as limits, and
/// what is used, where a node says so in time.
#[utoipa::path(get, path = "/v1/resources", tag = "constellation", responses(
    (status = 200, body = ResourcesView), (status = "default", body = Problem)))]
pub(super) async fn resources(Asked(control): Asked, ConnectInfo(caller): ConnectInfo<Caller>) -> Reply<ResourcesView> {
    Ok(Json(control.resources(caller).await?))
}

/// Try every other node
///
/// Whether its port takes a connection, a request and a datagram, and how far its clock is from this node's.
#[utoipa::path(get, path = "/v1/survey", tag = "constellation", responses(
    (status = 200, body = Survey), (status = "default", body = Problem)))]
pub(super) async fn survey(Asked(control): Asked) -> Reply<Survey> {
    Ok(Json(control.survey().await?))
}

/// Say whether a node gets stars, or gives those it has to others
#[utoipa::path(put, path = "/v1/nodes/{node}/duty", tag = "constellation", params(("node" = NodeId, Path)),
    request_body = SetDuty, responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn set_duty(
    Asked(control): Asked,
    Path(node): Path<NodeId>,
    Body(SetDuty { duty }): Body<SetDuty>,
) -> Reply<Accepted> {
    Ok(Json(control.set_duty(node, duty).await?))
}

/// Say something of a node that services have to put up with, or they get no star there
#[utoipa::path(put, path = "/v1/nodes/{node}/taints/{taint}", tag = "constellation",
    params(("node" = NodeId, Path), ("taint" = String, Path)), request_body = Taint,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn set_taint(
    Asked(control): Asked,
    Path((node, name)): Path<(NodeId, String)>,
    Body(taint): Body<Taint>,
) -> Reply<Accepted> {
    Ok(Json(control.set_taint(node, name, Some(taint)).await?))
}

/// Take that back
#[utoipa::path(delete, path = "/v1/nodes/{node}/taints/{taint}", tag = "constellation",
    params(("node" = NodeId, Path), ("taint" = String, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove_taint(Asked(control): Asked, Path((node, name)): Path<(NodeId, String)>) -> Reply<Accepted> {
    Ok(Json(control.set_taint(node, name, None).await?))
}

/// Say how often what nodes have may be kept for stars, where nothing of their own is said
#[utoipa::path(put, path = "/v1/overcommit", tag = "constellation", request_body = Overcommit,
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn set_overcommit(Asked(control): Asked, Body(overcommit): Body<Overcommit>) -> Reply<Accepted> {
    Ok(Json(control.set_overcommit(None, Some(overcommit)).await?))
}

/// Take that back: what nodes have is kept once
#[utoipa::path(delete, path = "/v1/overcommit", tag = "constellation",
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove_overcommit(Asked(control): Asked) -> Reply<Accepted> {
    Ok(Json(control.set_overcommit(None, None).await?))
}

/// Say how often what a node has may be kept for stars
#[utoipa::path(put, path = "/v1/nodes/{node}/overcommit", tag = "constellation", params(("node" = NodeId, Path)),
    request_body = Overcommit, responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn set_overcommit_of(
    Asked(control): Asked,
    Path(node): Path<NodeId>,
    Body(overcommit): Body<Overcommit>,
) -> Reply<Accepted> {
    Ok(Json(control.set_overcommit(Some(node), Some(overcommit)).await?))
}

/// Take that back: it is as for all others
#[utoipa::path(delete, path = "/v1/nodes/{node}/overcommit", tag = "constellation", params(("node" = NodeId, Path)),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove_overcommit_of(Asked(control): Asked, Path(node): Path<NodeId>) -> Reply<Accepted> {
    Ok(Json(control.set_overcommit(Some(node), None).await?))
}

/// Take a node out for good
#[utoipa::path(delete, path = "/v1/nodes/{node}", tag = "constellation", params(("node" = NodeId, Path), Removal),
    responses((status = 200, body = Accepted), (status = "default", body = Problem)))]
pub(super) async fn remove(
    Asked(control): Asked,
    Path(node): Path<NodeId>,
    Query(Removal { force }): Query<Removal>,
) -> Reply<Accepted> {
    Ok(Json(control.remove_node(node, force).await?))
}

/// A backup
///
/// The state, the keys of the constellation and the files of its apps, as one file that ends with a hash of all of it. Whoever
/// has it can be a controller: it is to be kept like a key.
#[utoipa::path(get, path = "/v1/backup", tag = "constellation", responses(
    (status = 200, content_type = "application/octet-stream"), (status = "default", body = Problem)))]
pub(super) async fn backup(Asked(control): Asked) -> Result<Response, Refusal> {
    let bytes = control.backup().await?.map(|bytes| bytes.map_err(std::io::Error::other));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], HttpBody::from_stream(bytes)).into_response())
}

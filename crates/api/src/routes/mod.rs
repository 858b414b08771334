//! Every route, and the document that describes them.

mod apps;
mod bundles;
mod certs;
mod constellation;
mod exec;
mod grants;
mod namespaces;
mod node;
mod secrets;
mod services;
mod snapshots;
mod stars;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use model::{Code, Problem};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Verdict;
use crate::control::{Caller, Control};
use crate::refusal::Refusal;
use crate::types::BODY_MAX_BYTES;
use crate::{access, elsewhere, keyed};

/// What the agent can do, for whoever asks. That they may is known: see [`access`].
struct Asked(Arc<dyn Control>);

impl FromRequestParts<Arc<dyn Control>> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<dyn Control>) -> Result<Self, Refusal> {
        match parts.extensions.get::<ConnectInfo<Caller>>() {
            Some(ConnectInfo(caller)) => Ok(Self(control.by(caller.clone()))),
            None => Err(Refusal(Problem::new(Code::Forbidden, "nobody is known to ask"))),
        }
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "RADS Constellation",
    description = "The API of one agent, spoken over `agent.sock` in its data folder by the folder's owner and root, and over \
                   HTTPS where it listens for users, by those who have a grant: `authorization: Bearer radk_…`, or a client \
                   certificate. Every refusal is a `Problem`."
))]
struct Document;

/// The routes over what an agent can do.
pub fn router(control: Arc<dyn Control>) -> Router {
    let (router, document) = described().split_for_parts();
    let document = document.to_json().unwrap_or_default();
    router
        .route("/v1/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], document) }))
        .fallback(|| async { not_a_route(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            not_a_route(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&control), enter))
        .with_state(control)
}

/// What every request goes through before its route; what is not allowed goes nowhere. One layer and not four: each would
/// be copied and its future kept on the heap for each request, so what few requests need has a future of its own.
async fn enter(State(control): State<Arc<dyn Control>>, mut request: Request, next: Next) -> Response {
    match access::verdict(&request) {
        Verdict::May => {}
        Verdict::MayNot(answer) => return answer,
        Verdict::Depends(row, caller) => {
            match Box::pin(access::check(&control, request, row, caller)).await {
                Ok(allowed) => request = allowed,
                Err(answer) => return answer,
            };
        }
    }
    if let Some((place, caller)) = elsewhere::whose(&request) {
        match Box::pin(elsewhere::pass_on(&control, place, caller, request)).await {
            Ok(ours) => request = ours,
            Err(answer) => return answer,
        }
    }
    DefaultBodyLimit::max(BODY_MAX_BYTES).apply(&mut request);
    if keyed::has_key(&request) {
        return Box::pin(keyed::read(request, next)).await;
    }
    next.run(request).await
}

/// The document alone, as it is served at `/v1/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

fn described() -> OpenApiRouter<Arc<dyn Control>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(node::version))
        .routes(routes!(node::status))
        .routes(routes!(node::index))
        .routes(routes!(node::events))
        .routes(routes!(node::watch))
        .routes(routes!(node::shutdown))
        .routes(routes!(apps::list))
        .routes(routes!(apps::get, apps::put, apps::remove))
        .routes(routes!(apps::forecast))
        .routes(routes!(services::list))
        .routes(routes!(services::get, services::remove))
        .routes(routes!(services::moves))
        .routes(routes!(services::explain))
        .routes(routes!(services::turn))
        .routes(routes!(services::stats))
        .routes(routes!(services::passed))
        .routes(routes!(services::limit))
        .routes(routes!(services::scale))
        .routes(routes!(services::pause))
        .routes(routes!(services::resume))
        .routes(routes!(services::restart))
        .routes(routes!(services::versions))
        .routes(routes!(services::runs, services::run))
        .routes(routes!(services::roll_back))
        .routes(routes!(services::turn_rollout))
        .routes(routes!(services::stop))
        .routes(routes!(services::start))
        .routes(routes!(stars::list))
        .routes(routes!(stars::get))
        .routes(routes!(stars::stats))
        .routes(routes!(stars::inspect))
        .routes(routes!(stars::logs))
        .routes(routes!(exec::exec))
        .routes(routes!(exec::copy))
        .routes(routes!(exec::dial))
        .routes(routes!(exec::talk))
        .routes(routes!(snapshots::take))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::restore))
        .routes(routes!(volumes::list))
        .routes(routes!(volumes::remove))
        .routes(routes!(bundles::put))
        .routes(routes!(bundles::blob))
        .routes(routes!(constellation::init))
        .routes(routes!(constellation::join))
        .routes(routes!(constellation::leave))
        .routes(routes!(constellation::nodes))
        .routes(routes!(constellation::resources))
        .routes(routes!(constellation::survey))
        .routes(routes!(constellation::set_duty))
        .routes(routes!(constellation::set_taint, constellation::remove_taint))
        .routes(routes!(constellation::set_overcommit, constellation::remove_overcommit))
        .routes(routes!(constellation::set_overcommit_of, constellation::remove_overcommit_of))
        .routes(routes!(constellation::remove))
        .routes(routes!(constellation::backup))
        .routes(routes!(certs::invite, certs::tokens))
        .routes(routes!(certs::revoke_token))
        .routes(routes!(certs::certificates))
        .routes(routes!(certs::rotate))
        .routes(routes!(certs::rotate_gossip))
        .routes(routes!(certs::revoke))
        .routes(routes!(grants::add, grants::list))
        .routes(routes!(grants::revoke))
        .routes(routes!(grants::audit))
        .routes(routes!(namespaces::list))
        .routes(routes!(namespaces::get, namespaces::create, namespaces::set, namespaces::remove))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::get, secrets::put, secrets::remove))
}

/// One JSON object a line, as they come.
fn lines<T: serde::Serialize + 'static>(
    records: impl Stream<Item = Result<T, Problem>> + Send + 'static,
) -> axum::response::Response {
    let lines = records.map(|record| {
        let mut line = serde_json::to_vec(&record.map_err(std::io::Error::other)?)?;
        line.push(b'\n');
        Ok::<_, std::io::Error>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

pub(crate) fn not_a_route(status: StatusCode, message: &str) -> impl IntoResponse {
    let problem = Problem::new(Code::Usage, message).help("the paths are in `/v1/openapi.json`");
    let mut response = Refusal(problem).into_response();
    *response.status_mut() = status;
    response
}

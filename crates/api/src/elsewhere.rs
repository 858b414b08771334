//! Requests that concern one star or volume are answered where it is: they are passed on as they came, and so are their answers, of
//! whatever length, and what becomes of their connections.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use model::{Code, Problem};
use tokio::io::copy_bidirectional;

use crate::control::{Caller, Control, Place, Road};
use crate::refusal::Refusal;

/// What a request is about, and who asks, if another agent may have to answer it.
pub(crate) fn whose(request: &Request) -> Option<(Place, Caller)> {
    let place = place_of(request.method(), request.uri().path())?;
    let ConnectInfo(caller) = request.extensions().get::<ConnectInfo<Caller>>()?;
    // What another agent passed on is answered here or not at all: it goes round no circle.
    caller.from.is_none().then(|| (place, caller.clone()))
}

/// Has the agent that the star is with answer a request; gives back what is to be answered here.
pub(crate) async fn pass_on(
    control: &Arc<dyn Control>,
    place: Place,
    caller: Caller,
    request: Request,
) -> Result<Request, Response> {
    let refused = |problem| Refusal(problem).into_response();
    match control.road(place, caller).await.map_err(refused)? {
        None => Ok(request),
        Some(road) => Err(through(road, request).await.unwrap_or_else(refused)),
    }
}

/// What a request is about that is with one agent alone: the inside of a star, `/v1/stars/{star}/…`, or the files of a volume.
/// What is known of a star as such is known everywhere.
fn place_of(method: &Method, path: &str) -> Option<Place> {
    if let Some(volume) = path.strip_prefix("/v1/volumes/") {
        let volume = volume.replace("%2F", "/").parse().ok();
        return volume.filter(|_| method == Method::DELETE).map(Place::Volume);
    }
    let (star, inside) = path.strip_prefix("/v1/stars/")?.split_once('/')?;
    if inside.is_empty() { None } else { star.parse().ok().map(Place::Star) }
}

async fn through(Road { node, stream }: Road, mut request: Request) -> Result<Response, Problem> {
    let lost = |error: hyper::Error| {
        let message = format!("node `{node}`, where it is, gave no answer: {error}");
        Problem::new(Code::Unavailable, message).help("`rads c nodes` shows who is there")
    };
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    tokio::spawn(connection.with_upgrades());
    let mut answer = sender.send_request(request).await.map_err(lost)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let there = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let Some(here) = upgrade else { return };
            if let (Ok(here), Ok(there)) = tokio::join!(here, there) {
                // How it ends is between the two.
                let _ = copy_bidirectional(&mut TokioIo::new(here), &mut TokioIo::new(there)).await;
            }
        });
        return Ok(answer.map(|_| Body::empty()));
    }
    // These are of the connection between the two agents.
    for field in [header::CONNECTION, header::TRANSFER_ENCODING] {
        answer.headers_mut().remove(field);
    }
    Ok(answer.map(Body::new))
}

#[cfg(test)]
mod tests {
    use model::StarId;

    use super::*;

    #[test]
    fn only_what_is_within_a_star_is_asked_where_it_is() {
        let star = StarId(7);
        let check = |path: &str, expected| assert_eq!(place_of(&Method::GET, path), expected, "{path}");
        for path in ["stats", "inspect", "exec", "copy", "ports/80"] {
            check(&format!("/v1/stars/{star}/{path}"), Some(Place::Star(star)));
        }
        for path in ["/v1/stars", "/v1/stars/", "/v1/stars/star_x/stats", "/v1/services/a/stats", "/v1/logs"] {
            check(path, None);
        }
        check(&format!("/v1/stars/{star}"), None);
        check(&format!("/v1/stars/{star}/"), None);
    }

    #[test]
    fn a_volume_is_deleted_where_it_lies() {
        let check = |method: &Method, path: &str, expected: Option<&str>| {
            let expected = expected.map(|volume| Place::Volume(volume.parse().unwrap()));
            assert_eq!(place_of(method, path), expected, "{path}");
        };
        check(&Method::DELETE, "/v1/volumes/pages", Some("pages"));
        check(&Method::DELETE, "/v1/volumes/team%2Fpages", Some("team/pages"));
        check(&Method::DELETE, "/v1/volumes/..", None);
        check(&Method::GET, "/v1/volumes/pages", None);
        check(&Method::GET, "/v1/volumes", None);
    }
}

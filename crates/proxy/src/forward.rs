//! The way of one HTTP request: choose a star, get a connection, send, answer; and what is tried again.
//!
//! Tried again is only what cannot do harm. A connection that is refused sends the request to another star, and leaves that
//! one out for a while; a machine that cannot be reached leaves out all its stars. One
//! that dies before the request was sent gives it back. One that dies later, before the first byte of an answer, has
//! the request sent once more if it needs no body and may be repeated (RFC 9110, section 9.2.2): on a fresh connection,
//! to another star when there is one, since a connection that dies is often the first sign of a star that does.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request;
use hyper::{Request, Response, StatusCode};
use model::{ServiceKey, StarId};
use tokio::time::timeout;

use crate::head::{self, Client, Refusal};
use crate::lane::{Lane, Ticket};
use crate::route::Route;
use crate::tunnel;
use crate::upstream::{Answer, Question, StarBody, Upstream};
use crate::{Connection, Dial, DialError};

/// Stars tried for one request before giving up: enough to step over a crashed one and its neighbour, few enough that
/// a broken service answers soon.
const STARS_MAX: usize = 3;
/// A star's door is on this machine; when it does not open within this, it will not.
const DIAL_FOR: Duration = Duration::from_secs(5);
/// A machine that is there answers within some tens of milliseconds, busy or far away within hundreds. One that has lost its power
/// answers nothing, and the request waits for this long.
const FAR_DIAL_FOR: Duration = Duration::from_secs(2);
/// A machine elsewhere that has answered within this is taken to be there. One that dies is noticed by requests sent after
/// that; those sent before wait until the connection to it ends.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// A machine that does not answer within this gets no request, whatever it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What a listener's connections share.
#[derive(Debug)]
pub(crate) struct Way<D> {
    pub(crate) service: ServiceKey,
    pub(crate) route: Arc<Route>,
    pub(crate) dial: Arc<D>,
}

impl<D: Dial> Way<D> {
    /// Answers one request. Never fails: what goes wrong is an answer too.
    pub(crate) async fn forward(&self, request: Request<Incoming>, client: &Client) -> Response<Answer> {
        let (mut head, body) = request.into_parts();
        let upgrade = match head::to_star(&mut head, client) {
            Ok(false) => None,
            // Taken before the head leaves for the star: it is the client's side of the tunnel.
            Ok(true) => head.extensions.remove::<hyper::upgrade::OnUpgrade>(),
            Err(refusal) => return refused(refusal),
        };
        let (mut answer, upstream, mut ticket) =
            match self.exchange(Request::from_parts(head, Question::new(body))).await {
                Ok(exchanged) => exchanged,
                Err(failure) => return self.failed(&failure),
            };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_side) = upgrade else {
                // A star must not switch to a protocol nobody asked for.
                ticket.fail();
                return self.failed(&Failure::Broken);
            };
            head::to_client(answer.headers_mut(), true);
            let star_side = hyper::upgrade::on(&mut answer);
            tokio::spawn(tunnel::run(client_side, star_side, upstream, ticket));
            return answer.map(|_| Answer::Empty);
        }
        head::to_client(answer.headers_mut(), false);
        let (head, body) = answer.into_parts();
        let mut body = Some(StarBody::new(body, upstream, ticket));
        let body = poll_fn(|cx| Poll::Ready(body.take().map(|body| body.settled(cx)))).await;
        Response::from_parts(head, body.map_or(Answer::Empty, Answer::Star))
    }

    /// Sends the request to one star after another until one answers or no more may be tried.
    async fn exchange(&self, mut request: Request<Question>) -> Result<Exchanged, Failure> {
        let mut tried: Vec<StarId> = Vec::new();
        // Left out while there is another: a connection of its died, though perhaps only of age.
        let mut suspect: Option<StarId> = None;
        let mut repeated = false;
        while tried.len() < STARS_MAX {
            let avoided: Vec<StarId> = tried.iter().copied().chain(suspect).collect();
            let Some(mut ticket) = self.route.pick(&avoided).or_else(|| self.route.pick(&tried)) else { break };
            // Once repeated, connections at rest are no longer trusted.
            let rested = if repeated { None } else { ticket.lane.take_idle() };
            if rested.is_some() && !self.answers(&ticket.lane).await {
                ticket.fail();
                tried.push(ticket.lane.endpoint.star);
                continue;
            }
            let fresh = rested.is_none();
            let upstream = match rested {
                Some(upstream) => Ok(upstream),
                None => self.connect(&ticket).await.map(Box::new),
            };
            if let Ok(mut upstream) = upstream {
                request = match ask(&mut upstream, request, !repeated).await {
                    Try::Answered(answer) => {
                        ticket.lane.reached();
                        ticket.answered(answer.status());
                        return Ok((answer, upstream, ticket));
                    }
                    Try::Unsent(request) => request,
                    Try::Died(Some(head)) => {
                        repeated = true;
                        Request::from_parts(head, Question::NONE)
                    }
                    Try::Died(None) => {
                        ticket.fail();
                        return Err(Failure::Broken);
                    }
                    Try::Unreadable => return Err(Failure::Unreadable),
                };
            }
            if fresh {
                ticket.fail();
                tried.push(ticket.lane.endpoint.star);
            } else {
                suspect = Some(ticket.lane.endpoint.star);
            }
        }
        Err(if repeated { Failure::Broken } else { Failure::NoStar })
    }

    async fn connect(&self, ticket: &Ticket) -> std::io::Result<Upstream> {
        Upstream::new(self.dial(&ticket.lane).await?).await
    }

    /// Whether the machine of a star takes requests, as far as is known without asking, or by asking when it has been silent.
    async fn answers(&self, lane: &Lane) -> bool {
        if lane.silence() < SILENT_FOR {
            return true;
        }
        let asked = timeout(ANSWER_WITHIN, self.dial.answers(lane.endpoint.node)).await;
        let answers = asked.unwrap_or(false);
        if answers {
            lane.heard()
        } else {
            lane.machine_failed()
        }
        answers
    }

    /// A new connection to a star; when there is none, others leave the star or its machine out for a while.
    pub(crate) async fn dial(&self, lane: &Lane) -> std::io::Result<Connection> {
        let within = if lane.is_far() { FAR_DIAL_FOR } else { DIAL_FOR };
        let dialled = timeout(within, self.dial.dial(lane.endpoint)).await;
        match dialled.unwrap_or_else(|_| Err(DialError::Machine(ErrorKind::TimedOut.into()))) {
            Ok(connection) => {
                lane.reached();
                Ok(connection)
            }
            Err(DialError::Star(error)) => {
                lane.star_failed();
                Err(error)
            }
            Err(DialError::Machine(error)) => {
                lane.machine_failed();
                Err(error)
            }
        }
    }
}

/// How one try on one connection ended.
enum Try {
    Answered(Response<Incoming>),
    /// Nothing of it was sent.
    Unsent(Request<Question>),
    /// It may have been received; the head is there when it may be sent again.
    Died(Option<request::Parts>),
    /// What the client sent as its body is none, or ended too early.
    Unreadable,
}

async fn ask(upstream: &mut Upstream, request: Request<Question>, may_repeat: bool) -> Try {
    let again = if may_repeat { repeatable(&request) } else { None };
    match upstream.send(request).await {
        Ok(answer) => Try::Answered(answer),
        // To a client of hyper's, which the proxy is here, the body is what its user gave.
        Err(error) if error.error().is_user() => Try::Unreadable,
        Err(mut error) => error.take_message().map_or(Try::Died(again), Try::Unsent),
    }
}

type Exchanged = (Response<Incoming>, Box<Upstream>, Ticket);

/// Why there is no answer to pass on.
enum Failure {
    /// Nothing was sent: no star is ready, or none could be reached.
    NoStar,
    /// The star took the request and ended the connection without a whole answer.
    Broken,
    /// The client's fault, which no star is to be blamed for.
    Unreadable,
}

impl<D> Way<D> {
    fn failed(&self, failure: &Failure) -> Response<Answer> {
        match failure {
            Failure::NoStar => {
                let mut answer =
                    own(StatusCode::SERVICE_UNAVAILABLE, format!("no star of `{}` is ready\n", self.service));
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                answer
            }
            Failure::Broken => own(StatusCode::BAD_GATEWAY, format!("a star of `{}` gave no answer\n", self.service)),
            Failure::Unreadable => last_answer(StatusCode::BAD_REQUEST, "the body of the request cannot be read\n"),
        }
    }
}

fn refused(refusal: Refusal) -> Response<Answer> {
    match refusal {
        Refusal::Host => last_answer(StatusCode::BAD_REQUEST, "the request needs exactly one `host`\n"),
        Refusal::Coding => {
            last_answer(StatusCode::NOT_IMPLEMENTED, "the only transfer coding understood here is `chunked`\n")
        }
        Refusal::Connect => last_answer(StatusCode::NOT_IMPLEMENTED, "`CONNECT` is not offered here\n"),
    }
}

/// The last one of a connection: where the next request begins is not certain.
fn last_answer(status: StatusCode, why: &str) -> Response<Answer> {
    let mut answer = own(status, why.to_owned());
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn own(status: StatusCode, text: String) -> Response<Answer> {
    let mut answer = Response::new(Answer::Own(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// A copy of the head when the request may be sent a second time after its connection died.
fn repeatable(request: &Request<Question>) -> Option<request::Parts> {
    if !head::is_idempotent(request.method()) || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy.into_parts().0)
}

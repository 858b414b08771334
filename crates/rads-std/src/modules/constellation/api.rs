//! The agent's API, for what programs ask of it: over the socket that a star has for it, or over the agent's own.
//!
//! Every change goes with a key that it alone has, so whatever is asked can be asked again: an agent that goes away is waited for,
//! as another one starts.

use std::path::PathBuf;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use model::talk::{API_SOCKET, WAY_IN_STAR};
use model::{Code, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{CONNECT_AGAIN, CONNECT_FOR, Way, no_agent};
use crate::modules::http::{Fetched, over};
use crate::modules::process::random_seed;
use crate::server::reply::Payload;

/// Longest answer: what a talkative star has written, or the list of all there is.
const ANSWER_MAX_BYTES: usize = 32 << 20;
/// Requests at once; more wait for these. A star's agent takes a few more than that from it.
const AT_ONCE: usize = 48;

pub(super) struct Api {
    way: Way,
    room: Semaphore,
}

impl Api {
    pub(super) fn new(way: Way) -> Self {
        Self { way, room: Semaphore::new(AT_ONCE) }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        read(&self.request(Method::GET, path, Bytes::new()).await?)
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        let body = serde_json::to_vec(body).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        read(&self.request(method, path, body.into()).await?)
    }

    /// Asks until an agent answers; gives what it says.
    pub(super) async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Problem> {
        let _turn = self.room.acquire().await;
        let key = (method != Method::GET).then(|| format!("{:016x}{:016x}", random_seed(), random_seed()));
        let deadline = Instant::now() + CONNECT_FOR;
        loop {
            let Ask { problem, lost } = match self.once(&method, path, body.clone(), key.as_deref()).await {
                Ok(answer) => return Ok(answer),
                Err(ask) => ask,
            };
            if !lost || Instant::now() >= deadline {
                return Err(problem);
            }
            sleep(CONNECT_AGAIN).await;
        }
    }

    async fn once(&self, method: &Method, path: &str, body: Bytes, key: Option<&str>) -> Result<Bytes, Ask> {
        let lost = |problem| Ask { problem, lost: true };
        let socket = self.socket().map_err(|problem| Ask { problem, lost: false })?;
        let stream = UnixStream::connect(&socket).await.map_err(|error| {
            let problem = no_agent(&socket, &error);
            Ask { lost: problem.code == Code::NoAgent, problem }
        })?;
        let mut request = Request::new(Payload::Bytes(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = path.parse().map_err(|_| {
            let problem = Problem::new(Code::InvalidValue, format!("`{}` is no path of the API", path.escape_debug()));
            Ask { problem, lost: false }
        })?;
        let fields = request.headers_mut();
        fields.insert(HOST, HeaderValue::from_static("agent"));
        if method != Method::GET {
            let blob = path.starts_with("/v1/blobs/");
            let kind = if blob { "application/octet-stream" } else { "application/json" };
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(key) = key.and_then(|key| HeaderValue::from_str(key).ok()) {
            fields.insert("idempotency-key", key);
        }
        let fetched = over(stream, request, ANSWER_MAX_BYTES, "the agent").await;
        let Fetched { status, body, .. } = fetched.map_err(|(kind, message)| match kind {
            "value" => Ask { problem: Problem::new(Code::InvalidValue, message), lost: false },
            _ => lost(Problem::new(Code::Unavailable, message).after_changes()),
        })?;
        if status.is_success() {
            return Ok(body);
        }
        let unread =
            |_| Problem::new(Code::Unsupported, format!("the agent answers `{status}`: it is of another version"));
        let problem = serde_json::from_slice(&body).unwrap_or_else(unread);
        Err(Ask { problem, lost: false })
    }

    fn socket(&self) -> Result<PathBuf, Problem> {
        match &self.way {
            Way::Star if !PathBuf::from(WAY_IN_STAR).is_dir() => {
                let problem =
                    Problem::new(Code::Forbidden, "this star may ask for nothing: its service has no `access`");
                Err(problem.help("give the service the option `access`, such as `access: \"operator\"`"))
            }
            Way::Star => Ok(PathBuf::from(WAY_IN_STAR).join(API_SOCKET)),
            Way::Api { socket, .. } => socket.clone(),
        }
    }
}

/// What came of asking once, where no answer did that is one.
struct Ask {
    problem: Problem,
    /// Nobody answered: it may be asked again.
    lost: bool,
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(answer).map_err(|error| {
        let problem = Problem::new(Code::Unsupported, format!("the agent's answer is not understood: {error}"));
        problem.help("it is of another version: restart it with this one")
    })
}

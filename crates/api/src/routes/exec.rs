//! `exec`: the connection is upgraded, and the command's input and output travel in the frames of [`crate::exec`].

use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use model::{Code, Name, Problem, StarId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Asked;
use crate::control::{Caller, Exec};
use crate::exec::{BYTES, EXIT, PAYLOAD_MAX, PROTOCOL, RESIZE, STDERR, STDIN, STDOUT, read_frame, write_frame};
use crate::refusal::{Body, Path, Query, Refusal};
use crate::types::{Copy, Ended, ExecCommand, TalkQuery, TerminalSize};

/// Run a command within a star's walls
///
/// Answers `101` and goes on with frames; see the description of `rads-exec/1`.
#[utoipa::path(post, path = "/v1/stars/{star}/exec", tag = "stars", params(("star" = StarId, Path)),
    request_body = ExecCommand,
    responses((status = 101, description = "the command runs"), (status = "default", body = Problem)))]
pub(super) async fn exec(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(star): Path<StarId>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let upgrade = upgrade_of(&mut request, PROTOCOL)?;
    let Body(command) = <Body<ExecCommand> as axum::extract::FromRequest<_>>::from_request(request, &()).await?;
    if command.argv.is_empty() {
        return Err(Refusal(Problem::new(Code::InvalidValue, "`argv` is empty: nothing to run")));
    }
    let running = control.exec(star, command, caller).await?;
    Ok(switch(upgrade, PROTOCOL, |connection| relay(running, connection)))
}

/// Copy files within a star's walls
///
/// Answers `101` and goes on with the frames of `rads-exec/1`: a tar stream one way, complaints on standard error, and the
/// exit code last.
#[utoipa::path(post, path = "/v1/stars/{star}/copy", tag = "stars", params(("star" = StarId, Path)),
    request_body = Copy,
    responses((status = 101, description = "the copy runs"), (status = "default", body = Problem)))]
pub(super) async fn copy(
    Asked(control): Asked,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(star): Path<StarId>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let upgrade = upgrade_of(&mut request, PROTOCOL)?;
    let Body(copy) = <Body<Copy> as axum::extract::FromRequest<_>>::from_request(request, &()).await?;
    let running = control.copy(star, copy, caller).await?;
    Ok(switch(upgrade, PROTOCOL, |connection| relay(running, connection)))
}

/// Connect to a port within a star
///
/// Answers `101` once the connection stands, and goes on with its bytes both ways.
#[utoipa::path(post, path = "/v1/stars/{star}/ports/{port}", tag = "stars",
    params(("star" = StarId, Path), ("port" = u16, Path)),
    responses((status = 101, description = "connected"), (status = "default", body = Problem)))]
pub(super) async fn dial(
    Asked(control): Asked,
    Path((star, port)): Path<(StarId, u16)>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let upgrade = upgrade_of(&mut request, BYTES)?;
    if port == 0 {
        return Err(Refusal(Problem::new(Code::InvalidValue, "a port is between 1 and 65535")));
    }
    let mut stream = control.dial(star, port).await?;
    Ok(switch(upgrade, BYTES, async move |mut connection| {
        // How it ends is between the two.
        let _ = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
    }))
}

/// Talk to stars, and hear what becomes of the machines
///
/// Answers `101`, and goes on with one JSON object a line each way: what `constellation` in RADS programs speaks.
#[utoipa::path(post, path = "/v1/talk", tag = "node", params(TalkQuery),
    responses((status = 101, description = "connected"), (status = "default", body = Problem)))]
pub(super) async fn talk(
    Asked(control): Asked,
    Query(TalkQuery { namespace }): Query<TalkQuery>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let upgrade = upgrade_of(&mut request, model::talk::PROTOCOL)?;
    let talk = control.talk(namespace.unwrap_or_else(Name::default_namespace)).await?;
    Ok(switch(upgrade, model::talk::PROTOCOL, async move |connection| talk(Box::new(connection)).await))
}

/// The connection that a request is to become.
fn upgrade_of(request: &mut Request, protocol: &str) -> Result<OnUpgrade, Refusal> {
    if request.headers().get(header::UPGRADE).is_some_and(|value| value == protocol) {
        return Ok(hyper::upgrade::on(request));
    }
    Err(Refusal(Problem::new(Code::Usage, format!("this needs the header `upgrade: {protocol}`"))))
}

/// Answers with the switch, and goes on with the connection.
fn switch<F: Future<Output = ()> + Send + 'static>(
    upgrade: OnUpgrade,
    protocol: &'static str,
    go_on: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Response {
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => go_on(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, protocol, "caller gone"),
        }
    });
    let headers = [
        (header::UPGRADE, HeaderValue::from_static(protocol)),
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Frames waiting to be sent. Pipes wait when it is full: at most 8 × 64 KiB are held.
const FRAMES_WAITING: usize = 8;

/// How long the last a command said on its terminal may take to come from there.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Carries input in and output out until the command has ended or the caller is gone. A caller that leaves closes
/// the command's pipes, which is all that a terminal would do too.
async fn relay<C: AsyncRead + AsyncWrite + Send + 'static>(running: Exec, connection: C) {
    let (from, mut to) = tokio::io::split(connection);
    let (frames, mut sending) = mpsc::channel::<Frame>(FRAMES_WAITING);
    let Exec { stdin, stdout, stderr, resize, exit } = running;
    let on_terminal = resize.is_some();
    let output = async move {
        let said = async { tokio::join!(pump(stdout, STDOUT, &frames), pump(stderr, STDERR, &frames)) };
        let exit = if on_terminal {
            let (mut said, mut exit) = (std::pin::pin!(said), exit);
            tokio::select! {
                _ = &mut said => exit.await,
                exit = &mut exit => {
                    // What it leaves in the background may keep the terminal open for ever.
                    let _ = timeout(LAST_WORDS, said).await;
                    exit
                }
            }
        } else {
            tokio::join!(said, exit).1
        };
        let ended = exit.map_or_else(Ended::Problem, Ended::Code);
        let _ = frames.send((EXIT, serde_json::to_vec(&ended).unwrap_or_default())).await;
    };
    let send = async {
        while let Some((kind, payload)) = sending.recv().await {
            if write_frame(&mut to, kind, &payload).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let mut fed = std::pin::pin!(feed(from, stdin, resize));
    tokio::select! {
        ((), ()) = async { tokio::join!(output, send) } => {}
        () = &mut fed => return,
    }
    // On its way over another node, what was sent last would be lost with the connection: the caller closes it first.
    let _ = timeout(CLOSED_WITHIN, fed).await;
}

/// Longest wait for a caller that was told the end to close its connection.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

type Frame = (u8, Vec<u8>);

/// Writes the caller's input into the command; returns when the caller is gone.
async fn feed<R: AsyncRead + Unpin>(
    mut from: R,
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    resize: Option<Box<dyn Fn(TerminalSize) + Send>>,
) {
    let mut stdin = Some(stdin);
    while let Ok(Some((kind @ (STDIN | RESIZE), payload))) = read_frame(&mut from).await {
        if kind == RESIZE {
            if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice(&payload)) {
                resize(size);
            }
            continue;
        }
        let open = match &mut stdin {
            Some(pipe) if !payload.is_empty() => pipe.write_all(&payload).await.is_ok(),
            _ => false,
        };
        if !open {
            stdin = None;
        }
    }
}

async fn pump(mut from: Box<dyn AsyncRead + Send + Unpin>, kind: u8, frames: &mpsc::Sender<Frame>) {
    let mut buffer = vec![0; PAYLOAD_MAX];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if frames.send((kind, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

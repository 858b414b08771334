//! `http`: a client for plain HTTP. One connection per request; `https` waits for the TLS library and says so.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rads_vm::{Cx, Params, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Options;
use crate::handler::header_object;
use crate::library::{Action, Entry, Host, host, make};
use crate::server::reply::Payload;

pub(crate) const ENTRIES: &[Entry] = &[
    host("http", "get", Params::exactly(1).with_options(), get),
    host("http", "post", Params::exactly(2).with_options(), post),
    host("http", "request", Params::exactly(0).with_options(), request),
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// A reply beyond this is refused unless the program asks for more: it is held in memory.
const DEFAULT_MAX_BODY: usize = 8 * 1024 * 1024;

/// One request as the program wants it.
struct Wish {
    method: Method,
    url: Uri,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    max_body: usize,
}

pub(super) struct Fetched {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Kind and message of the error to throw.
pub(super) type Failure = (&'static str, String);

fn get(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.cx();
    let url = cx.arg(args, 0);
    let options = Options::new(&mut cx, args, 1)?;
    begin(&mut cx, Method::GET, url, Value::Null, options)
}

fn post(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.cx();
    let (url, body) = (cx.arg(args, 0), cx.arg(args, 1));
    let options = Options::new(&mut cx, args, 2)?;
    begin(&mut cx, Method::POST, url, body, options)
}

/// Everything in one object: `url`, `method` (GET without it), `body`, and what the others take.
fn request(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.cx();
    let mut options = Options::new(&mut cx, args, 0)?;
    let url = options.get(&cx, "url").unwrap_or_default();
    let body = options.get(&cx, "body").unwrap_or_default();
    let method = options.text(&mut cx, "method")?.unwrap_or_else(|| "GET".to_owned()).to_ascii_uppercase();
    match Method::from_bytes(method.as_bytes()) {
        Ok(method) => begin(&mut cx, method, url, body, options),
        Err(_) => Err(cx.error("value", format!("`{method}` is no HTTP method"))),
    }
}

fn begin(cx: &mut Cx<'_>, method: Method, url: Value, body: Value, mut options: Options) -> Result<Action, Value> {
    let text = cx.arg_text(&[url], 0, "url")?.to_owned();
    let url = checked(&text).map_err(|fault| cx.error("value", fault))?;
    let body = match body {
        Value::Null => Bytes::new(),
        body => match cx.as_bytes(body) {
            Some(bytes) => Bytes::copy_from_slice(bytes),
            None => return Err(cx.wrong("body", "a string or bytes", body)),
        },
    };
    let headers = headers(cx, &mut options)?;
    let timeout = options.natural(cx, "timeout_ms")?.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
    let max_body = options.natural(cx, "max_body_bytes")?.map_or(DEFAULT_MAX_BODY, |max| max as usize);
    options.done(cx)?;
    let wish = Wish { method, url, headers, body, timeout, max_body };
    Ok(Action::Later(Box::pin(async move {
        let outcome = fetch(wish).await;
        make(move |cx| match outcome {
            Ok(fetched) => Ok(fetched_object(cx, fetched)),
            Err((kind, message)) => Err(cx.error(kind, message)),
        })
    })))
}

fn checked(text: &str) -> Result<Uri, String> {
    let without_fragment = text.split('#').next().unwrap_or_default();
    let url: Uri = without_fragment.parse().map_err(|_| format!("`{text}` is no URL"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(url),
        (Some("https"), _) => Err(format!("`{text}` needs TLS, which this version cannot do yet (`http://` works)")),
        _ => Err(format!("`{text}` is no URL like `http://example.org/path`")),
    }
}

fn headers(cx: &mut Cx<'_>, options: &mut Options) -> Result<HeaderMap, Value> {
    let mut made = HeaderMap::new();
    let given = options.get(cx, "headers").unwrap_or_default();
    for (name, value) in cx.entries(given) {
        let text = cx.display(value);
        match (HeaderName::try_from(name.as_str()), HeaderValue::from_str(&text)) {
            (Ok(name), Ok(value)) => made.append(name, value),
            _ => return Err(cx.error("value", format!("`{name}: {text}` is no header"))),
        };
    }
    if let Some(media_type) = options.text(cx, "type")? {
        match HeaderValue::from_str(&media_type) {
            Ok(value) => made.insert(CONTENT_TYPE, value),
            Err(_) => return Err(cx.error("value", format!("`{media_type}` is no media type"))),
        };
    }
    Ok(made)
}

/// `{status, ok, headers, body}`; the body is bytes when it is not UTF-8.
fn fetched_object(cx: &mut Cx<'_>, fetched: Fetched) -> Value {
    let headers = header_object(cx, &fetched.headers);
    let body = match std::str::from_utf8(&fetched.body) {
        Ok(text) => cx.str(text),
        Err(_) => cx.bytes(fetched.body.to_vec()),
    };
    cx.object_of(&[
        ("status", Value::Int(i64::from(fetched.status.as_u16()))),
        ("ok", Value::Bool(fetched.status.is_success())),
        ("headers", headers),
        ("body", body),
    ])
}

async fn fetch(wish: Wish) -> Result<Fetched, Failure> {
    let (limit, url) = (wish.timeout, wish.url.clone());
    let late = |_| ("timeout", format!("`{url}` did not answer within {} ms", limit.as_millis()));
    timeout(limit, exchange(wish)).await.map_err(late)?
}

async fn exchange(wish: Wish) -> Result<Fetched, Failure> {
    let url = wish.url;
    let host = url.host().unwrap_or_default();
    let address = (host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(|error| {
        ("net", format!("cannot connect to `{}:{}`: {}", address.0, address.1, error.to_string().to_lowercase()))
    })?;
    let _ = stream.set_nodelay(true);
    let mut request = Request::new(Payload::Bytes(wish.body));
    *request.method_mut() = wish.method;
    *request.uri_mut() = url.path_and_query().map_or("/", |path| path.as_str()).parse().expect("part of a good URL");
    *request.headers_mut() = wish.headers;
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    // What comes before `@` are credentials, which a Host header must not carry.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let fields = request.headers_mut();
    if let Ok(value) = HeaderValue::from_str(authority) {
        fields.entry(HOST).or_insert(value);
    }
    fields.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("rads/", env!("CARGO_PKG_VERSION"))));
    over(stream, request, wish.max_body, &format!("`{url}`")).await
}

/// One request over a connection of its own, to who is called so.
pub(super) async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Payload>,
    max_body: usize,
    whom: &str,
) -> Result<Fetched, Failure> {
    let broken = |error: hyper::Error| ("net", format!("the exchange with {whom} failed: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The connection is driven in here rather than as a task of its own, so that it ends with this future.
    let mut connection = pin!(connection);
    let mut exchange = pin!(async {
        let reply = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = reply.into_parts();
        let body = collect(body, max_body).await?;
        Ok(Fetched { status: head.status, headers: head.headers, body })
    });
    let mut connected = true;
    poll_fn(|context| {
        if connected && connection.as_mut().poll(context).is_ready() {
            // Done or broken; what it still had for the exchange was handed over.
            connected = false;
        }
        match exchange.as_mut().poll(context) {
            Poll::Pending if connected => {
                // The exchange may have given the connection something to send.
                if connection.as_mut().poll(context).is_ready() {
                    connected = false;
                    return exchange.as_mut().poll(context);
                }
                Poll::Pending
            }
            outcome => outcome,
        }
    })
    .await
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| ("net", format!("the reply broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > limit {
            return Err(("value", format!("the reply is larger than {limit} bytes (option `max_body_bytes`)")));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

//! Between HTTP and blasts: a request as arguments, what a handler returned as a reply.
//!
//! A handler takes as many of `(path, method, body, query, params, headers, cookies)` as it declares; what it does not
//! declare is not built. It returns text, `[status, body, type]`, or `{status, headers, body, type}`.

use std::rc::Rc;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use rads_vm::{Cx, RootId, Uncaught, Value};

use crate::machine::{Machine, complain};
use crate::server::reply::{self, Payload, Reply};
use crate::server::{App, Call};
use crate::web::{cookie, urlencoded};

/// What became of one handler.
pub(crate) enum Answer {
    Reply(Reply),
    /// It returned null: the next one is asked, and after the last there is nothing to say.
    Nothing,
    /// It threw or returned what is no reply; the text is for the log, not for the client.
    Failed(String),
}

/// The script as the server sees it.
#[derive(Clone)]
pub(crate) struct Script(pub(crate) Rc<Machine>);

impl App for Script {
    type Target = RootId;

    async fn answer(&self, targets: Vec<RootId>, call: Call) -> Reply {
        for target in targets {
            // The machine lives as long as its connections; a lost asker would mean that the task was cancelled.
            let cancelled = Answer::Failed("error: the handler was cancelled".to_owned());
            match self.0.handle(target, &call).await.unwrap_or(cancelled) {
                Answer::Reply(reply) => return reply,
                Answer::Nothing => {}
                Answer::Failed(text) => {
                    complain(&format_args!("{} {}: {text}", call.head.method, call.head.uri.path()));
                    return reply::status(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
        }
        reply::empty(StatusCode::NO_CONTENT)
    }
}

pub(crate) fn arguments(cx: &mut Cx<'_>, callee: Value, call: &Call) -> Vec<Value> {
    const MAKERS: [fn(&mut Cx<'_>, &Call) -> Value; 7] = [
        |cx, call| cx.str(call.head.uri.path()),
        |cx, call| cx.str(call.head.method.as_str()),
        body,
        |cx, call| form_object(cx, call.head.uri.query().unwrap_or_default()),
        params,
        headers,
        cookies,
    ];
    let wanted = cx.param_count(callee).unwrap_or(MAKERS.len());
    MAKERS.iter().take(wanted).map(|make| make(cx, call)).collect()
}

/// Text when it is UTF-8, else bytes.
fn body(cx: &mut Cx<'_>, call: &Call) -> Value {
    match std::str::from_utf8(&call.body) {
        Ok(text) => cx.str(text),
        Err(_) => cx.bytes(call.body.to_vec()),
    }
}

/// A query or form as an object; of a name that occurs several times the last value counts.
pub(crate) fn form_object(cx: &mut Cx<'_>, text: &str) -> Value {
    let object = cx.object();
    for (name, value) in urlencoded::parse(text) {
        let value = cx.string(value);
        cx.set(object, &name, value);
    }
    object
}

fn params(cx: &mut Cx<'_>, call: &Call) -> Value {
    let object = cx.object();
    for (name, value) in &call.params {
        let value = cx.str(value);
        cx.set(object, name, value);
    }
    object
}

fn headers(cx: &mut Cx<'_>, call: &Call) -> Value {
    header_object(cx, &call.head.headers)
}

/// Lower-case names; several headers of one name are joined by a comma, as RFC 9110, 5.3 allows.
pub(crate) fn header_object(cx: &mut Cx<'_>, headers: &HeaderMap) -> Value {
    let object = cx.object();
    for name in headers.keys() {
        let all: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let value = cx.string(all.join(", "));
        cx.set(object, name.as_str(), value);
    }
    object
}

fn cookies(cx: &mut Cx<'_>, call: &Call) -> Value {
    let object = cx.object();
    let texts = call.head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    for (name, value) in texts.flat_map(cookie::parse) {
        let value = cx.str(value);
        cx.set(object, name, value);
    }
    object
}

pub(crate) fn answer(cx: &mut Cx<'_>, outcome: Result<Value, Uncaught>) -> Answer {
    match outcome {
        Err(uncaught) => Answer::Failed(uncaught.to_string()),
        Ok(Value::Null) => Answer::Nothing,
        Ok(value) => match reply_from(cx, value) {
            Ok(reply) => Answer::Reply(reply),
            Err(fault) => Answer::Failed(format!("error: {fault}")),
        },
    }
}

fn reply_from(cx: &mut Cx<'_>, value: Value) -> Result<Reply, String> {
    match value {
        Value::Str(_) | Value::Bytes(_) => Parts { body: value, ..Parts::default() }.build(cx),
        Value::Array(_) => {
            let items = cx.items(value);
            let part = |n: usize| items.get(n).copied().unwrap_or_default();
            if !(1..=3).contains(&items.len()) {
                return Err(format!(
                    "a handler returned an array of {} (`[status, body, type]` expected)",
                    items.len()
                ));
            }
            Parts { status: part(0), body: part(1), media_type: part(2), headers: Value::Null }.build(cx)
        }
        Value::Object(_) | Value::Struct(_) => {
            let mut parts = Parts::default();
            for (name, part) in cx.entries(value) {
                match name.as_str() {
                    "status" => parts.status = part,
                    "headers" => parts.headers = part,
                    "body" => parts.body = part,
                    "type" => parts.media_type = part,
                    _ => {
                        return Err(format!(
                            "a handler returned an object with `{name}` (`net.json_response(value)` sends any value)"
                        ));
                    }
                }
            }
            parts.build(cx)
        }
        other => Err(format!("a handler returned {} `{}`, which is no reply", other.kind(), cx.display(other))),
    }
}

#[derive(Default)]
struct Parts {
    status: Value,
    headers: Value,
    body: Value,
    media_type: Value,
}

impl Parts {
    fn build(self, cx: &Cx<'_>) -> Result<Reply, String> {
        let (body, natural_type) = match self.body {
            Value::Null => (Bytes::new(), None),
            Value::Bytes(_) => (bytes_of(cx, self.body), Some(HeaderValue::from_static("application/octet-stream"))),
            Value::Str(_) => (bytes_of(cx, self.body), Some(reply::TEXT)),
            other => (Bytes::from(cx.display(other)), Some(reply::TEXT)),
        };
        let mut made = Response::new(Payload::Bytes(body));
        *made.status_mut() = status(cx, self.status)?;
        fill_headers(cx, self.headers, made.headers_mut())?;
        if let Some(text) = cx.as_text(self.media_type) {
            let value = HeaderValue::from_str(text).map_err(|_| format!("`{text}` is no media type"))?;
            made.headers_mut().insert(CONTENT_TYPE, value);
        } else if let Some(natural_type) = natural_type {
            made.headers_mut().entry(CONTENT_TYPE).or_insert(natural_type);
        }
        Ok(made)
    }
}

fn bytes_of(cx: &Cx<'_>, value: Value) -> Bytes {
    Bytes::copy_from_slice(cx.as_bytes(value).unwrap_or_default())
}

fn status(cx: &Cx<'_>, value: Value) -> Result<StatusCode, String> {
    if value.is_null() {
        return Ok(StatusCode::OK);
    }
    let code = value.as_int().and_then(|code| u16::try_from(code).ok()).filter(|code| (200..=599).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("a handler returned the status `{}` (200 to 599 expected)", cx.display(value)))
}

/// A header's value is text, or an array of texts for several headers of one name.
fn fill_headers(cx: &Cx<'_>, headers: Value, into: &mut HeaderMap) -> Result<(), String> {
    if !matches!(headers, Value::Null | Value::Object(_) | Value::Struct(_)) {
        return Err(format!("a handler returned headers that are no object but {}", headers.kind()));
    }
    for (name, value) in cx.entries(headers) {
        let header = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is no header name"))?;
        let single = [value];
        for value in cx.as_items(value).unwrap_or(&single) {
            let text = cx.display(*value);
            let value = HeaderValue::from_str(&text)
                .map_err(|_| format!("the value of header `{name}` has a newline or control character"))?;
            into.append(header.clone(), value);
        }
    }
    Ok(())
}

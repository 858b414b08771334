//! `url`, `base64`, `html` and `crypto`: text formats, and random bytes. Hashes come with the TLS library that will
//! bring them anyway.

use hyper::Uri;
use rads_vm::{Cx, Params, Value};

use super::process::random_bytes;
use crate::handler::form_object;
use crate::library::{Entry, inline};
use crate::web::{base64, html, urlencoded};

pub(crate) const ENTRIES: &[Entry] = &[
    inline("url", "encode", Params::exactly(1), url_encode),
    inline("url", "decode", Params::exactly(1), url_decode),
    inline("url", "parse", Params::exactly(1), url_parse),
    inline("base64", "encode", Params::exactly(1), base64_encode),
    inline("base64", "decode", Params::exactly(1), base64_decode),
    inline("base64", "decode_bytes", Params::exactly(1), base64_decode_bytes),
    inline("html", "escape", Params::exactly(1), html_escape),
    inline("crypto", "random_hex", Params::exactly(1), random_hex),
    inline("crypto", "uuid", Params::exactly(0), uuid),
];

fn url_encode(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let encoded = urlencoded::encode(&cx.display(args[0]));
    Ok(cx.string(encoded))
}

fn url_decode(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let decoded = urlencoded::decode_path(cx.arg_text(args, 0, "text")?);
    Ok(cx.string(decoded))
}

/// `{scheme, host, port, path, query, params, fragment}`; what a URL does not say is null, the path at least `/`.
fn url_parse(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let text = cx.arg_text(args, 0, "url")?.to_owned();
    let (address, fragment) = match text.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (text.as_str(), None),
    };
    let Ok(uri) = address.parse::<Uri>() else {
        return Err(cx.error("value", format!("`{text}` is no URL")));
    };
    let text = |cx: &mut Cx<'_>, part: Option<&str>| part.map_or(Value::Null, |part| cx.str(part));
    let fields = [
        ("scheme", text(cx, uri.scheme_str())),
        ("host", text(cx, uri.host())),
        ("port", uri.port_u16().map_or(Value::Null, |port| Value::Int(i64::from(port)))),
        ("path", text(cx, Some(if uri.path().is_empty() { "/" } else { uri.path() }))),
        ("query", text(cx, uri.query())),
        ("params", form_object(cx, uri.query().unwrap_or_default())),
        ("fragment", text(cx, fragment)),
    ];
    Ok(cx.object_of(&fields))
}

fn base64_encode(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    match cx.as_bytes(args[0]).map(base64::encode) {
        Some(encoded) => Ok(cx.string(encoded)),
        None => Err(cx.wrong("content", "a string or bytes", args[0])),
    }
}

fn base64_decode(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    match String::from_utf8(decoded(cx, args)?) {
        Ok(text) => Ok(cx.string(text)),
        Err(_) => Err(cx.error("value", "the content is not UTF-8 text (`base64.decode_bytes` gives any bytes)")),
    }
}

fn base64_decode_bytes(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let content = decoded(cx, args)?;
    Ok(cx.bytes(content))
}

fn decoded(cx: &mut Cx<'_>, args: &[Value]) -> Result<Vec<u8>, Value> {
    base64::decode(cx.arg_text(args, 0, "text")?).ok_or_else(|| cx.error("value", "`text` is not base64"))
}

pub(crate) fn html_escape(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let escaped = html::escape(&cx.display(args[0]));
    Ok(cx.string(escaped))
}

/// So many random bytes from the kernel, as twice as many digits.
fn random_hex(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let count = cx.arg_int(args, 0, "bytes")?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count <= 4096) else {
        return Err(cx.error("value", "`bytes` must lie between 0 and 4096"));
    };
    let mut bytes = vec![0; count];
    random_bytes(&mut bytes);
    let text = hex(&bytes);
    Ok(cx.string(text))
}

/// A random UUID (RFC 9562, version 4).
fn uuid(cx: &mut Cx<'_>, _: &[Value]) -> Result<Value, Value> {
    let mut bytes = [0; 16];
    random_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Ok(cx.string(groups.join("-")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

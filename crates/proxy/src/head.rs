//! What a proxy changes in the head of a message: pure functions over headers (RFC 9110 section 7, RFC 9112).
//!
//! Fields that belong to one connection are removed, what the next hop must know is added, and a request whose target
//! two servers could read differently is refused. Framing is the HTTP library's: it refuses lengths that contradict
//! each other and frames every body anew, so that nothing a client wrote about lengths reaches a star unread.

use std::net::IpAddr;

use hyper::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request;
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::{Method, Version};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const VIA: HeaderValue = HeaderValue::from_static("1.1 rads");

/// Why a request is not passed on; shown to the client with status 400 (501 for `CONNECT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// HTTP/1.1 without exactly one `Host` (RFC 9112, section 3.2).
    Host,
    /// This is a gateway, not a way to reach other hosts.
    Connect,
    /// A transfer coding other than `chunked`, or that twice (RFC 9112, section 6.1): a star would take coded bytes for the
    /// body.
    Coding,
}

/// Who is at the other end of a client's connection, as headers tell it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: HeaderValue,
    /// On this machine: perhaps a TLS terminator in front, whose word about the client is believed.
    trusted: bool,
}

impl Client {
    /// Once a connection; its requests share the text.
    pub(crate) fn new(address: IpAddr) -> Self {
        let text = HeaderValue::from_str(&address.to_string()).expect("an address is visible ASCII");
        Self { address: text, trusted: address.is_loopback() }
    }
}

/// Makes a client's request one for a star. Returns whether it asks for another protocol (`Upgrade`).
pub(crate) fn to_star(head: &mut request::Parts, client: &Client) -> Result<bool, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    settle_host(head)?;
    let codings: Vec<&str> = head.headers.get_all(header::TRANSFER_ENCODING).iter().flat_map(tokens).collect();
    if !matches!(codings[..], [] | [_]) || codings.iter().any(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        return Err(Refusal::Coding);
    }
    let upgrade = upgrade_of(&head.headers);
    let trailers_welcome = head.headers.get_all(header::TE).iter().any(|te| lists(te, "trailers"));
    remove_hop_by_hop(&mut head.headers);
    // The library answers the client with 100 as soon as the star's connection asks for the body.
    head.headers.remove(header::EXPECT);
    if trailers_welcome {
        head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    let upgrades = upgrade.is_some();
    if let Some(protocol) = upgrade {
        set_upgrade(&mut head.headers, protocol);
    }
    forwarded(&mut head.headers, client);
    head.headers.append(header::VIA, VIA);
    head.version = Version::HTTP_11;
    Ok(upgrades)
}

/// Makes a star's answer one for the client. `switching` says that it is the 101 of an upgrade that was asked for.
pub(crate) fn to_client(headers: &mut HeaderMap, switching: bool) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It decides how long the body is, whatever is said beside it (RFC 9112, section 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    let upgrade = if switching { headers.get(header::UPGRADE).cloned() } else { None };
    remove_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        set_upgrade(headers, protocol);
    }
}

/// Whether sending the request twice does what sending it once does (RFC 9110, section 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE)
}

/// Leaves one `Host` and a target of the form a server expects. An absolute target overrides the field.
fn settle_host(head: &mut request::Parts) -> Result<(), Refusal> {
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)?;
        head.headers.insert(header::HOST, host);
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
        return Ok(());
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        // HTTP/1.0 need not say; the next hop speaks 1.1 and must be told something.
        (None, _) if head.version < Version::HTTP_11 => {
            head.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
            Ok(())
        }
        _ => Err(Refusal::Host),
    }
}

/// Removes `Connection`, every field it names, and those that are of one connection without being named.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Entry::Occupied(entry) = headers.entry(header::CONNECTION) {
        let named: Vec<HeaderValue> = entry.remove_entry_mult().1.collect();
        for value in &named {
            for name in tokens(value) {
                // Most connections say only this; it names no field worth looking for.
                if !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close") && may_be_named(name)
                {
                    headers.remove(name);
                }
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

/// A client must not take away, by naming it, what the proxy or the framing relies on.
fn may_be_named(name: &str) -> bool {
    !["host", "content-length", "via"].iter().any(|kept| name.eq_ignore_ascii_case(kept))
        && !name.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("x-forwarded-"))
}

fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    // A tunnel of HTTP/2 would carry requests past everything done here to a request.
    if lists(protocol, "h2c") {
        return None;
    }
    let asked = headers.get_all(header::CONNECTION).iter().any(|value| lists(value, "upgrade"));
    asked.then(|| protocol.clone())
}

fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Says who asked. What a client on another machine claims about this is replaced.
fn forwarded(headers: &mut HeaderMap, client: &Client) {
    if client.trusted {
        headers.append(FORWARDED_FOR, client.address.clone());
    } else {
        headers.insert(FORWARDED_FOR, client.address.clone());
    }
    let host = headers.get(header::HOST).cloned();
    let mut say = |name: HeaderName, value: Option<HeaderValue>| {
        let Some(value) = value else { return };
        if !client.trusted || !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    };
    say(FORWARDED_PROTO, Some(HeaderValue::from_static("http")));
    say(FORWARDED_HOST, host);
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

fn lists(value: &HeaderValue, wanted: &str) -> bool {
    tokens(value).any(|token| token.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn sent(client: IpAddr, headers: &[(&str, &str)]) -> Vec<String> {
        let mut head = parts("GET", "/", headers);
        to_star(&mut head, &Client::new(client)).unwrap();
        let mut lines: Vec<_> =
            head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let seen = sent(
            REMOTE,
            &[
                ("host", "a"),
                ("connection", "keep-alive, X-Mine"),
                ("connection", "host, x-forwarded-for, close"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("upgrade", "websocket"),
                ("expect", "100-continue"),
                ("cookie", "kept"),
            ],
        );
        assert_eq!(
            seen,
            [
                "cookie: kept",
                "host: a",
                "via: 1.1 rads",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn claims_about_the_client_are_believed_only_from_this_machine() {
        let claims = [("host", "a"), ("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")];
        let told = |client| sent(client, &claims).into_iter().filter(|line| line.starts_with("x-")).collect::<Vec<_>>();
        assert_eq!(
            told(LOCAL),
            [
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-for: 203.0.113.9",
                "x-forwarded-host: a",
                "x-forwarded-proto: https"
            ]
        );
        assert_eq!(told(REMOTE), ["x-forwarded-for: 192.0.2.7", "x-forwarded-host: a", "x-forwarded-proto: http"]);
    }

    #[test]
    fn a_body_has_one_length_and_no_coding_that_is_not_undone() {
        let check = |codings: &[&str], expected| {
            let headers: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            let mut head = parts("POST", "/", &[&[("host", "a")], &headers[..]].concat());
            assert_eq!(to_star(&mut head, &Client::new(LOCAL)), expected, "{codings:?}");
        };
        check(&["Chunked"], Ok(false));
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked, chunked"], &["chunked", "chunked"]] {
            check(codings, Err(Refusal::Coding));
        }
        let mut answer = parts("GET", "/", &[("content-length", "3"), ("transfer-encoding", "chunked")]).headers;
        to_client(&mut answer, false);
        assert!(answer.is_empty(), "{answer:?}");
    }

    #[test]
    fn an_upgrade_and_a_wish_for_trailers_are_passed_on() {
        let mut head = parts("GET", "/", &[("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(to_star(&mut head, &Client::new(LOCAL)), Ok(true));
        assert_eq!(head.headers[header::UPGRADE], "websocket");
        assert_eq!(head.headers[header::CONNECTION], "upgrade");
        let mut head = parts("GET", "/", &[("host", "a"), ("connection", "upgrade"), ("upgrade", "h2c")]);
        assert_eq!(to_star(&mut head, &Client::new(LOCAL)), Ok(false));
        assert!(!head.headers.contains_key(header::UPGRADE));
        let mut head = parts("GET", "/", &[("host", "a"), ("te", "gzip;q=0.5, trailers")]);
        assert_eq!(to_star(&mut head, &Client::new(LOCAL)), Ok(false));
        assert_eq!(head.headers[header::TE], "trailers");
    }

    #[test]
    fn the_target_is_made_one_for_a_server() {
        let mut head = parts("GET", "http://b.example/x?y=1", &[("host", "a")]);
        to_star(&mut head, &Client::new(LOCAL)).unwrap();
        assert_eq!(
            (head.uri.to_string().as_str(), &head.headers[header::HOST]),
            ("/x?y=1", &"b.example".parse().unwrap())
        );
        let mut head = parts("GET", "http://b.example", &[]);
        to_star(&mut head, &Client::new(LOCAL)).unwrap();
        assert_eq!(head.uri, "/");
    }

    #[test]
    fn requests_that_could_be_read_two_ways_are_refused() {
        for (method, headers, refusal) in [
            ("GET", &[][..], Refusal::Host),
            ("GET", &[("host", "a"), ("host", "b")][..], Refusal::Host),
            ("CONNECT", &[("host", "a")][..], Refusal::Connect),
        ] {
            let target = if method == "CONNECT" { "a:1" } else { "/" };
            assert_eq!(
                to_star(&mut parts(method, target, headers), &Client::new(LOCAL)),
                Err(refusal),
                "{method} {headers:?}"
            );
        }
    }

    #[test]
    fn an_answer_loses_its_connection_fields_and_keeps_the_rest() {
        let mut head = parts(
            "GET",
            "/",
            &[("connection", "close"), ("keep-alive", "x"), ("transfer-encoding", "chunked"), ("trailer", "digest")],
        );
        to_client(&mut head.headers, false);
        assert_eq!(head.headers.keys().collect::<Vec<_>>(), ["trailer"]);
    }
}

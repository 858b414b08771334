//! Cookies (RFC 6265): reading the `Cookie` header, writing one `Set-Cookie` value.

use std::fmt::Write;

/// What a script may say about a cookie it sets. The defaults are the safe ones: unreadable for scripts in the page,
/// not sent along with another site's requests, valid for the whole site until the browser closes.
#[derive(Debug, PartialEq)]
pub(crate) struct Attributes {
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) max_age_seconds: Option<i64>,
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SameSite {
    Strict,
    Lax,
    /// Sent with every request; browsers accept it with `secure` only, so it is implied.
    None,
}

impl Default for Attributes {
    fn default() -> Attributes {
        Attributes {
            path: "/".to_owned(),
            domain: None,
            max_age_seconds: None,
            http_only: true,
            secure: false,
            same_site: SameSite::Lax,
        }
    }
}

/// Names and values of a `Cookie` header, in order; what has no `=` is left out.
pub(crate) fn parse(header: &str) -> impl Iterator<Item = (&str, &str)> {
    header.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        Some((name, value))
    })
}

/// The value of a `Set-Cookie` header, or why the name or value cannot be carried by one.
pub(crate) fn render(name: &str, value: &str, attributes: &Attributes) -> Result<String, String> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("`{name}` is no cookie name: letters, digits and -_. only"));
    }
    if !value.bytes().all(is_cookie_octet) {
        return Err(format!("the value of cookie `{name}` has a space, quote, comma, semicolon or control character"));
    }
    let clean = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b';');
    if !clean(&attributes.path) || !attributes.domain.as_deref().is_none_or(clean) {
        return Err(format!("the path or domain of cookie `{name}` has a semicolon or control character"));
    }
    let mut out = format!("{name}={value}; Path={}", attributes.path);
    if let Some(domain) = &attributes.domain {
        let _ = write!(out, "; Domain={domain}");
    }
    if let Some(seconds) = attributes.max_age_seconds {
        let _ = write!(out, "; Max-Age={seconds}");
    }
    if attributes.http_only {
        out.push_str("; HttpOnly");
    }
    if attributes.secure || attributes.same_site == SameSite::None {
        out.push_str("; Secure");
    }
    out.push_str(match attributes.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    Ok(out)
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 6265, 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_pair_by_pair() {
        let check = |header: &str, expected: &[(&str, &str)]| {
            assert_eq!(parse(header).collect::<Vec<_>>(), expected, "{header}");
        };
        check("a=1; b=2", &[("a", "1"), ("b", "2")]);
        check("a=\"x y\";b=", &[("a", "x y"), ("b", "")]);
        check("flag; a=b=c", &[("a", "b=c")]);
        check("", &[]);
    }

    #[test]
    fn a_cookie_is_safe_unless_told_otherwise() {
        let plain = render("sid", "abc", &Attributes::default());
        assert_eq!(plain.as_deref(), Ok("sid=abc; Path=/; HttpOnly; SameSite=Lax"));
        let open = Attributes {
            path: "/app".to_owned(),
            domain: Some("example.org".to_owned()),
            max_age_seconds: Some(60),
            http_only: false,
            secure: false,
            same_site: SameSite::None,
        };
        let expected = "sid=; Path=/app; Domain=example.org; Max-Age=60; Secure; SameSite=None";
        assert_eq!(render("sid", "", &open).as_deref(), Ok(expected));
    }

    #[test]
    fn what_would_smuggle_a_header_is_refused() {
        for (name, value) in [("", "x"), ("a b", "x"), ("a", "x;y"), ("a", "x\r\nSet-Cookie: b=1"), ("a", "é")] {
            assert!(render(name, value, &Attributes::default()).is_err(), "{name}={value}");
        }
        let attributes = Attributes { path: "/;x".to_owned(), ..Attributes::default() };
        assert!(render("a", "b", &attributes).is_err());
    }
}

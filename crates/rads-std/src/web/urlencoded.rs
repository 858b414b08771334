//! Percent-encoding: `application/x-www-form-urlencoded` bodies and queries (WHATWG URL, 5.1), and single components.
//! Decoding never fails: a stray `%` stays itself and bytes that are not UTF-8 become U+FFFD, as in browsers.

/// Name and value pairs in order; a `+` is a space.
pub(crate) fn parse(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name, true), decode(value, true))
    })
}

/// One path segment or URL component: a `+` stays a plus sign.
pub(crate) fn decode_path(text: &str) -> String {
    decode(text, false)
}

/// Everything but letters, digits and `-_.~` as `%XX`, like JavaScript's `encodeURIComponent` but stricter (RFC 3986).
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }
    out
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn decode(text: &str, plus_is_space: bool) -> String {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = if bytes[index] == b'%' { hex_pair(bytes.get(index + 1..index + 3)) } else { None };
        match (bytes[index], escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                index += 3;
                continue;
            }
            (b'+', None) if plus_is_space => out.push(b' '),
            (byte, None) => out.push(byte),
        }
        index += 1;
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn hex_pair(pair: Option<&[u8]>) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    match pair? {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_split_before_they_are_decoded() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let pairs: Vec<_> = parse(text).collect();
            let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(pairs, expected, "{text}");
        };
        check("", &[]);
        check("a=1&b=2", &[("a", "1"), ("b", "2")]);
        check("a=1&&a=2&", &[("a", "1"), ("a", "2")]);
        check("q=a+b%26c%3Dd&flag", &[("q", "a b&c=d"), ("flag", "")]);
        check("x=%", &[("x", "%")]);
        check("x=%2", &[("x", "%2")]);
        check("x=%zz%41", &[("x", "%zzA")]);
        check("x=%ff", &[("x", "\u{fffd}")]);
        check("=v", &[("", "v")]);
        check("k=a=b", &[("k", "a=b")]);
    }

    #[test]
    fn encoding_reads_back() {
        for text in ["", "plain-text_1.~", "a b+c/d?e=f&g", "snowman ☃", "100%"] {
            assert_eq!(decode_path(&encode(text)), text);
        }
        assert_eq!(encode("a b/ö"), "a%20b%2F%C3%B6");
    }
}

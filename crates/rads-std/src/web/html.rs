//! HTML escaping, safe in element content and in quoted attribute values.

pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    escape_into(text, &mut out);
    out
}

pub(crate) fn escape_into(text: &str, out: &mut String) {
    let mut plain_from = 0;
    for (index, byte) in text.bytes().enumerate() {
        let entity = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        out.push_str(&text[plain_from..index]);
        out.push_str(entity);
        plain_from = index + 1;
    }
    out.push_str(&text[plain_from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_characters_are_escaped_and_nothing_else() {
        assert_eq!(escape("<a href=\"x\">Tom & 'Jerry' ☃</a>"), {
            "&lt;a href=&quot;x&quot;&gt;Tom &amp; &#39;Jerry&#39; ☃&lt;/a&gt;"
        });
        assert_eq!(escape(""), "");
        assert_eq!(escape("plain"), "plain");
    }
}

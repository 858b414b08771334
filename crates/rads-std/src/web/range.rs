//! The `Range` header (RFC 9110, 14): one byte range of a file. Several ranges in one request are answered with the
//! whole file, which the RFC allows and which spares the multipart format that nobody asks of small servers.

use std::ops::Range as Span;

#[derive(Debug, PartialEq)]
pub(crate) enum Range {
    /// No header, another unit, several ranges or nonsense: the whole file with status 200.
    Whole,
    /// Never empty and inside the file: 206.
    Part(Span<u64>),
    /// Starts behind the end: 416.
    Unsatisfiable,
}

pub(crate) fn parse(header: Option<&str>, size: u64) -> Range {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Range::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Range::Whole };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Absent) if first < size => Range::Part(first..size),
        (Number::Is(first), Number::Is(last)) if first <= last && first < size => {
            Range::Part(first..size.min(last.saturating_add(1)))
        }
        (Number::Is(first), Number::Is(last)) if first > last => Range::Whole,
        (Number::Is(_), Number::Is(_) | Number::Absent) => Range::Unsatisfiable,
        // `-500`: the last 500 bytes; of an empty file or of length 0 there is no last byte.
        (Number::Absent, Number::Is(length)) if length > 0 && size > 0 => {
            Range::Part(size.saturating_sub(length)..size)
        }
        (Number::Absent, Number::Is(_)) => Range::Unsatisfiable,
        _ => Range::Whole,
    }
}

enum Number {
    Is(u64),
    Absent,
    Nonsense,
}

fn number(text: &str) -> Number {
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for 64 bits lies behind the end of any file.
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Nonsense
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_selects_what_the_rfc_says() {
        let check = |header: &str, size: u64, expected: Range| {
            assert_eq!(parse(Some(header), size), expected, "{header} of {size}");
        };
        check("bytes=0-99", 1000, Range::Part(0..100));
        check("bytes=900-", 1000, Range::Part(900..1000));
        check("bytes=-100", 1000, Range::Part(900..1000));
        check("bytes=-5000", 1000, Range::Part(0..1000));
        check("bytes=0-0", 1, Range::Part(0..1));
        check("bytes=500-5000", 1000, Range::Part(500..1000));
        check("bytes=0-99999999999999999999999", 10, Range::Part(0..10));
        check("bytes=1000-", 1000, Range::Unsatisfiable);
        check("bytes=1000-2000", 1000, Range::Unsatisfiable);
        check("bytes=-0", 1000, Range::Unsatisfiable);
        check("bytes=-1", 0, Range::Unsatisfiable);
        check("bytes=9-3", 1000, Range::Whole);
        check("bytes=0-1,3-4", 1000, Range::Whole);
        check("bytes=-", 1000, Range::Whole);
        check("bytes=a-b", 1000, Range::Whole);
        check("lines=1-2", 1000, Range::Whole);
        assert_eq!(parse(None, 10), Range::Whole);
    }
}

//! A join token that somebody typed: the input is a text, or changes to that of a token.
#![no_main]

use fuzz::change;
use libfuzzer_sys::fuzz_target;
use net::identity::Token;

fuzz_target!(|input: &[u8]| {
    let Some((what, bytes)) = input.split_first() else { return };
    let mut text = bytes.to_vec();
    if what % 2 == 1 {
        let Some((body, rest)) = bytes.split_first_chunk::<64>() else { return };
        let (name, changes) = rest.split_at(rest.len().min(usize::from(what / 2) % 64));
        let Ok(cluster) = String::from_utf8_lossy(name).parse() else { return };
        let token = Token::from_parts(cluster, body);
        text = token.reveal().as_bytes().to_vec();
        if changes.is_empty() {
            assert_eq!(token.reveal().parse(), Ok(token), "a token is read from its text");
            return;
        }
        change(&mut text, changes);
    }
    let Ok(text) = std::str::from_utf8(&text) else { return };
    if let Ok(token) = text.parse::<Token>() {
        let again: Token = token.reveal().parse().expect("what it says of itself");
        assert_eq!(again.hash(), token.hash());
        assert!(text.trim().eq_ignore_ascii_case(&token.reveal()), "a token has one text");
    }
});

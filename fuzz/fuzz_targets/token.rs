//! A join token that somebody typed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::identity::Token;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(token) = text.parse::<Token>() {
        let again: Token = token.reveal().parse().expect("what it says of itself");
        assert_eq!(again.hash(), token.hash());
        assert!(text.trim().eq_ignore_ascii_case(&token.reveal()), "a token has one text");
    }
});

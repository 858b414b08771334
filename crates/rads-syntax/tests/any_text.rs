//! Any text gives a tree, quickly, with spans that lie within it.

use std::fmt::Write as _;

use proptest::prelude::*;
use rads_syntax::parse;

/// Words and signs that get far into the grammar when strung together at random.
const PIECES: [&str; 64] = [
    "blast", "turbo", "if", "elif", "else", "loop", "while", "for", "cruise", "in", "switch", "case", "default",
    "break", "return", "struct", "enum", "try", "catch", "finally", "throw", "typeof", "import", "export", "await",
    "spawn", "x", "P", "i32", "array", "1", "2.5", "0x", "\"s\"", "\"", "'c'", "'", "`a${", "`", "}", "{", "(", ")",
    "[", "]", ";", ",", ":", ".", "..", "...", "?", "?.", "??", "=", "==", "<", ">", "-", "++", "+=", "/*", "//", "\n",
];

fn check(source: &str) {
    let parse = parse(source);
    for diagnostic in &parse.diagnostics {
        let range = diagnostic.span.range();
        assert!(source.get(range.clone()).is_some(), "{range:?} is no part of {source:?}");
        rads_syntax::render(diagnostic, "any.rads", source, false);
    }
    rads_syntax::dump(&parse.file);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_characters(source in any::<String>()) {
        check(&source);
    }

    #[test]
    fn any_pieces(picks in prop::collection::vec((0..PIECES.len(), any::<bool>()), 0..120)) {
        let source = picks.iter().fold(String::new(), |mut text, (pick, blank)| {
            let _ = write!(text, "{}{}", PIECES[*pick], if *blank { " " } else { "" });
            text
        });
        check(&source);
    }
}

#[test]
fn depth_is_bounded_not_crashed_on() {
    const LEVELS: usize = 200_000;
    let repeated = |start: &str, middle: &str, end: &str| format!("{start}{}{end}", middle.repeat(LEVELS));
    for source in [
        repeated("", "(", ""),
        repeated("", "[", ""),
        repeated("", "{", ""),
        repeated("x = ", "{a:", ""),
        repeated("", "-", "1;"),
        repeated("", "!", "1;"),
        repeated("1", "+1", ";"),
        repeated("x", ".a", ";"),
        repeated("x", "[0]", ";"),
        repeated("f", "()", ";"),
        repeated("", "if x {", ""),
        repeated("if a {}", " else if b {}", ""),
        repeated("", "blast(){", ""),
        repeated("", "a = ", "1;"),
        repeated("", "a ? ", "1;"),
        repeated("", "`${", ""),
        repeated("turbo ", "[", ""),
        repeated("turbo a", "<a", ""),
        repeated("", "spawn ", "f();"),
        repeated("", "export ", "turbo x;"),
        repeated("`${", "{", ""),
        repeated("", "a ?? ", "1;"),
        repeated("", "1 .. ", "1;"),
        repeated("for ", "(", ""),
        repeated("", "\"", ""),
    ] {
        let parse = parse(&source);
        assert!(parse.diagnostics.len() <= 101);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    let parse = parse(&" ".repeat((8 << 20) + 1));
    assert_eq!(parse.diagnostics[0].code, rads_syntax::codes::FILE_TOO_LARGE);
}

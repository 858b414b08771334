//! Command lines of units: what goes before the program, quotes and escapes, specifiers and variables.

use crate::shell::is_variable;
use crate::text::{Piece, Text};

/// What `%n` and the like stand for.
pub(super) struct Specifiers {
    unit: String,
}

impl Specifiers {
    pub(super) fn of(unit: &str) -> Self {
        Self { unit: unit.to_owned() }
    }

    /// Puts them in; one that is not known here stays.
    pub(super) fn expand(&self, text: &str) -> String {
        let plain = self.unit.rsplit_once('.').map_or(self.unit.as_str(), |(plain, _)| plain);
        let (prefix, instance) = plain.split_once('@').unwrap_or((plain, ""));
        let mut result = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                result.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => result.push('%'),
                Some('n') => result.push_str(&self.unit),
                Some('N') => result.push_str(plain),
                Some('p' | 'P') => result.push_str(prefix),
                Some('i' | 'I') => result.push_str(instance),
                Some('j' | 'J') => result.push_str(prefix.rsplit('-').next().unwrap_or(prefix)),
                Some('t') => result.push_str("/run"),
                Some('S') => result.push_str("/var/lib"),
                Some('C') => result.push_str("/var/cache"),
                Some('L') => result.push_str("/var/log"),
                Some('E') => result.push_str("/etc"),
                Some('T') => result.push_str("/tmp"),
                Some('V') => result.push_str("/var/tmp"),
                Some('h') => result.push_str("/root"),
                Some('u') => result.push_str("root"),
                Some('U' | 'G') => result.push('0'),
                Some('H' | 'l' | 'q') => result.push_str("$STAR_NAME"),
                Some(other) => result.extend(['%', other]),
                None => result.push('%'),
            }
        }
        result
    }
}

/// The words of a line, and the signs before its program (`-`, `+`, `!`, `@`, `:`).
pub(super) fn words(line: &str) -> (Vec<Text>, String) {
    let line = line.trim_start();
    let end = line.find(|c: char| !"-+!@:|".contains(c)).unwrap_or(line.len());
    let (signs, rest) = line.split_at(end);
    let mut words: Vec<Text> = split(rest).into_iter().map(Text::from).collect();
    // With `@` the second word is what the program is told it is called.
    if signs.contains('@') && words.len() > 1 {
        words.remove(1);
    }
    (words, signs.to_owned())
}

/// A variable's value in the words of a command, as the unit gives it; `$NAME` alone is several words.
pub(super) fn with_variables(words: Vec<Text>, value: &dyn Fn(&str) -> Option<Text>) -> (Vec<Text>, Vec<String>) {
    let (mut result, mut unknown) = (Vec::new(), Vec::new());
    for word in words {
        let plain = word.by_default();
        let alone = plain.strip_prefix('$').filter(|name| is_variable(name));
        if let Some(name) = alone {
            match value(name) {
                Some(text) => result.extend(crate::text::words(&text)),
                None if is_star_variable(name) => result.push(word),
                None => unknown.push(name.to_owned()),
            }
            continue;
        }
        let mut text = Text::default();
        let mut rest = plain.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            text.push(before);
            rest = after;
            if let Some(behind) = rest.strip_prefix('$') {
                text.push("$");
                rest = behind;
                continue;
            }
            let braced = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            match braced.filter(|(name, _)| is_variable(name)) {
                Some((name, behind)) => {
                    match value(name) {
                        Some(known) => known.0.into_iter().for_each(|piece| match piece {
                            Piece::Fixed(known) => text.push(&known),
                            env => text.0.push(env),
                        }),
                        None if is_star_variable(name) => text.push(&format!("${name}")),
                        None => unknown.push(name.to_owned()),
                    }
                    rest = behind;
                }
                None => text.push("$"),
            }
        }
        text.push(rest);
        result.push(text);
    }
    (result, unknown)
}

/// What every star is told of itself.
fn is_star_variable(name: &str) -> bool {
    matches!(name, "PORT" | "STAR_NAME" | "STAR_ID" | "STAR_GENERATION")
}

/// Words by blanks; quotes hold words together, and `\` starts the escapes of C.
pub(super) fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', _) => {
                let word = word.get_or_insert_default();
                match chars.next() {
                    Some('n') => word.push('\n'),
                    Some('t') => word.push('\t'),
                    Some('r') => word.push('\r'),
                    Some('s') => word.push(' '),
                    Some('x') => {
                        let digits: String = (0..2).filter_map(|_| chars.next_if(char::is_ascii_hexdigit)).collect();
                        word.extend(u8::from_str_radix(&digits, 16).ok().map(char::from));
                    }
                    Some(other @ ('\\' | '"' | '\'' | ' ')) => word.push(other),
                    Some(other) => word.extend(['\\', other]),
                    None => word.push('\\'),
                }
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_apart_as_systemd_splits_them() {
        let check = |line: &str, expected: &[&str], signs: &str| {
            let (read, before) = words(line);
            let read: Vec<String> = read.iter().map(Text::by_default).collect();
            assert_eq!(
                (read, before.as_str()),
                (expected.iter().map(|word| (*word).to_owned()).collect(), signs),
                "{line}"
            );
        };
        check("/bin/a -b 'c d' \"e\\x20f\"", &["/bin/a", "-b", "c d", "e f"], "");
        check("-+/bin/a", &["/bin/a"], "-+");
        check("@/bin/sh zero -c x", &["/bin/sh", "-c", "x"], "@");
    }

    #[test]
    fn variables_are_put_in_as_words_or_within_them() {
        let value = |name: &str| (name == "OPTS").then(|| Text::from("-a 'b c'"));
        let (read, unknown) = with_variables(words("/bin/x $OPTS ${OPTS} $NONE a$$b $PORT").0, &value);
        let read: Vec<String> = read.iter().map(Text::by_default).collect();
        assert_eq!(read, ["/bin/x", "-a", "b c", "-a 'b c'", "a$b", "$PORT"]);
        assert_eq!(unknown, ["NONE"]);
    }

    #[test]
    fn specifiers_are_what_the_unit_is_called() {
        let of = Specifiers::of("web@one.service");
        assert_eq!(of.expand("%n %N %p %i %% %t/x %z"), "web@one.service web@one web one % /run/x %z");
    }
}

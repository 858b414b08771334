//! Words of a command line as a POSIX shell makes them, with what it would have put in place of `$NAME` kept apart.

use crate::text::{Piece, Text};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: Text,
    /// The line it starts on, from 1.
    pub(crate) line: u32,
    /// `&&`, `;`, `|` and the like, which no quote held.
    pub(crate) is_operator: bool,
    /// Something in it takes a shell: a command substitution, a pattern.
    pub(crate) needs_shell: bool,
}

/// Splits a text. It never fails: a quote that nothing closes goes on to the end.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1 };
    let mut words = Vec::new();
    while let Some(word) = lexer.word() {
        words.push(word);
    }
    words
}

/// The words of one simple command that takes no shell to run; nothing when it takes one.
pub(crate) fn simple(text: &str) -> Option<Vec<Text>> {
    let words = words(text);
    let plain = |word: &Word| !word.is_operator && !word.needs_shell;
    // `NAME=value program` is a shell's, too.
    let assigns = |word: &Word| {
        let name = word.text.by_default();
        name.split_once('=').is_some_and(|(name, _)| is_variable(name))
    };
    let fits = words.iter().all(plain) && words.first().is_some_and(|word| !assigns(word));
    fits.then(|| words.into_iter().map(|word| word.text).collect())
}

/// Words by blanks, quotes and `\\` alone: nothing in it means anything else.
pub(crate) fn quoted_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), None::<String>, text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\'' => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match (c, chars.clone().next()) {
                        ('\\', Some('"' | '\\')) => word.extend(chars.next()),
                        _ => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: u32,
}

impl Lexer {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        self.line += u32::from(c == '\n');
        Some(c)
    }

    fn take(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }

    /// From a `\` over blanks to the end of the line: how many characters; none, when something else comes.
    fn blanks_then_end(&self) -> usize {
        let blanks = self.chars[self.at + 1..].iter().take_while(|c| matches!(c, ' ' | '\t' | '\r')).count();
        match self.chars.get(self.at + 1 + blanks) {
            Some('\n') => blanks + 2,
            _ => 0,
        }
    }

    /// Blanks, comments and lines that go on.
    fn skip(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.take(1),
                Some('\\') if matches!(self.chars.get(self.at + 1), Some('\n')) => {
                    self.next();
                    self.next();
                }
                // Blanks behind it are there by mistake, and would be a word.
                Some('\\') if self.blanks_then_end() > 0 => self.take(self.blanks_then_end()),
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) -> Option<Word> {
        self.skip();
        let line = self.line;
        let first = self.peek()?;
        if "\n;&|<>()".contains(first) {
            let mut text = String::new();
            text.push(first);
            self.next();
            while let Some(c) = self.peek().filter(|c| "&|<>".contains(*c) && "&|<>".contains(first)) {
                text.push(c);
                self.next();
            }
            return Some(Word { text: text.into(), line, is_operator: true, needs_shell: false });
        }
        // The number of what is led elsewhere, as in `2>&1`, is no word.
        let digits = self.chars[self.at..].iter().take_while(|c| c.is_ascii_digit()).count();
        if digits > 0 && matches!(self.chars.get(self.at + digits), Some('<' | '>')) {
            self.take(digits);
            return self.word();
        }
        let mut word = Word { text: Text::default(), line, is_operator: false, needs_shell: false };
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                '\'' => {
                    self.next();
                    while let Some(c) = self.next().filter(|c| *c != '\'') {
                        word.text.push(c.encode_utf8(&mut [0; 4]));
                    }
                }
                '"' => self.in_quotes(&mut word),
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(c) => word.text.push(c.encode_utf8(&mut [0; 4])),
                    }
                }
                '$' => self.dollar(&mut word),
                '`' => self.substitution(&mut word),
                c => {
                    self.next();
                    // A pattern, or a home folder.
                    word.needs_shell |= matches!(c, '*' | '?') || c == '~' && word.text.0.is_empty();
                    word.text.push(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
        if word.text.0.is_empty() {
            word.text.0.push(Piece::Fixed(String::new()));
        }
        Some(word)
    }

    fn in_quotes(&mut self, word: &mut Word) {
        self.next();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    return;
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(c @ ('"' | '\\' | '$' | '`')) => word.text.push(c.encode_utf8(&mut [0; 4])),
                        Some(c) => word.text.push(&format!("\\{c}")),
                    }
                }
                '$' => self.dollar(word),
                '`' => self.substitution(word),
                c => {
                    self.next();
                    word.text.push(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
    }

    /// A variable; anything else behind a `$` takes a shell.
    fn dollar(&mut self, word: &mut Word) {
        self.next();
        let rest: String = self.chars[self.at..].iter().take(200).collect();
        if rest.starts_with('(') {
            let mut depth = 0_usize;
            let mut inner = String::from("$");
            while let Some(c) = self.next() {
                inner.push(c);
                depth += usize::from(c == '(');
                depth -= usize::from(c == ')').min(depth);
                if depth == 0 {
                    break;
                }
            }
            word.needs_shell = true;
            word.text.push(&inner);
            return;
        }
        if rest.starts_with('{')
            && let Some(end) = rest.find('}')
        {
            let (text, _) = crate::text::interpolated(&format!("${}", &rest[..=end]));
            let taken = rest[..=end].chars().count();
            self.take(taken);
            word.needs_shell |= text.variables().is_empty();
            for piece in text.0 {
                match piece {
                    Piece::Fixed(text) => word.text.push(&text),
                    env => word.text.0.push(env),
                }
            }
            return;
        }
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if is_variable(&name) {
            self.take(name.len());
            word.text.0.push(Piece::Env { name, otherwise: String::new() });
        } else {
            word.needs_shell |= rest.starts_with(|c: char| c.is_ascii_digit() || "@*#?!$".contains(c));
            word.text.push("$");
        }
    }

    fn substitution(&mut self, word: &mut Word) {
        word.needs_shell = true;
        word.text.push("`");
        self.next();
        while let Some(c) = self.next() {
            word.text.push(c.encode_utf8(&mut [0; 4]));
            if c == '`' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<String> {
        words(text).iter().map(|word| word.text.by_default()).collect()
    }

    #[test]
    fn words_come_apart_as_in_a_shell() {
        let check = |text: &str, expected: &[&str]| assert_eq!(plain(text), expected, "{text}");
        check("a  b\tc", &["a", "b", "c"]);
        check("a 'b c' \"d e\" f\\ g", &["a", "b c", "d e", "f g"]);
        check("a \\\n  b # no more\n", &["a", "b", "\n"]);
        check("-e 'A=\"x\"' \"B=\\\"y\\\"\" ''", &["-e", "A=\"x\"", "B=\"y\"", ""]);
        check("a&&b;c|d", &["a", "&&", "b", ";", "c", "|", "d"]);
        check("'never closed", &["never closed"]);
        check("$(pwd)/x:/y", &["$(pwd)/x:/y"]);
        check("${A:-b}c \"$D\"e", &["bc", "e"]);
        check("it\\'s $", &["it's", "$"]);
        check("a 2>&1 >b x2 3", &["a", ">&", "1", ">", "b", "x2", "3"]);
        check("a \\ \n b", &["a", "b"]);
    }

    #[test]
    fn words_come_apart_by_quotes_alone() {
        assert_eq!(quoted_words("a 'b $c' \"d \\\" e\" f\\ g ''"), ["a", "b $c", "d \" e", "f g", ""]);
        assert_eq!(quoted_words("a && b; 'open"), ["a", "&&", "b;", "open"]);
    }

    #[test]
    fn what_takes_a_shell_is_told_apart() {
        for yes in ["gunicorn app -b 0.0.0.0:$PORT", "node 'a b.js'", "echo a=b"] {
            assert!(simple(yes).is_some(), "{yes}");
        }
        for no in ["a && b", "a > f", "ls *.js", "echo $(date)", "A=1 node", "cd ~", "a `b`", "", "echo $1"] {
            assert!(simple(no).is_none(), "{no}");
        }
    }

    #[test]
    fn a_quoted_word_is_read_back() {
        for word in ["", "plain", "a b", "it's", "$HOME", "a\nb", "*"] {
            assert_eq!(plain(&quoted(word)), [word], "{word}");
        }
    }
}

//! A text of the app: as it is, or with what the environment has when the app is evaluated.

/// Pieces that follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Fixed(String),
    /// `env.get(name, otherwise)`.
    Env {
        name: String,
        otherwise: String,
    },
}

impl Text {
    pub(crate) fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Fixed(last)) => last.push_str(text),
            _ => self.0.push(Piece::Fixed(text.to_owned())),
        }
    }

    /// The text, when the environment has no part in it.
    pub(crate) fn fixed(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Fixed(text)] => Some(text),
            _ => None,
        }
    }

    /// What it is when the environment has nothing.
    pub(crate) fn by_default(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Fixed(text) => text.clone(),
            Piece::Env { otherwise, .. } => otherwise.clone(),
        };
        self.0.iter().map(piece).collect()
    }

    /// The variables that have a part in it.
    pub(crate) fn variables(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|piece| match piece {
                Piece::Env { name, .. } => Some(name.as_str()),
                Piece::Fixed(_) => None,
            })
            .collect()
    }
}

/// Stand for variables while a text is split into words: nobody writes characters of this range.
const STAND_INS: std::ops::Range<u32> = 0xE000..0xF8FF;

/// The words of a text, by blanks and quotes; variables stay in the words they are in.
pub(crate) fn words(text: &Text) -> Vec<Text> {
    let is_stand_in = |c: char| STAND_INS.contains(&u32::from(c));
    let mut plain = String::new();
    let mut variables = Vec::new();
    for piece in &text.0 {
        match piece {
            Piece::Fixed(text) => plain.extend(text.chars().filter(|c| !is_stand_in(*c))),
            variable => {
                let number = STAND_INS.start + (variables.len() as u32).min(STAND_INS.end - STAND_INS.start - 1);
                plain.extend(char::from_u32(number));
                variables.push(variable.clone());
            }
        }
    }
    let back = |word: String| {
        let mut text = Text::default();
        for c in word.chars() {
            match is_stand_in(c) {
                true => text.0.extend(variables.get((u32::from(c) - STAND_INS.start) as usize).cloned()),
                false => text.push(c.encode_utf8(&mut [0; 4])),
            }
        }
        text
    };
    crate::shell::quoted_words(&plain).into_iter().map(back).collect()
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        let text: String = text.into();
        Self(if text.is_empty() { Vec::new() } else { vec![Piece::Fixed(text)] })
    }
}

/// `$NAME`, `${NAME}` and `${NAME:-otherwise}` to pieces, as compose reads them; `$$` is a `$`. What is none of these stays.
/// Names come back that must be set (`${NAME:?why}`).
pub(crate) fn interpolated(text: &str) -> (Text, Vec<String>) {
    let (mut result, mut needed) = (Text::default(), Vec::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push(before);
        rest = after;
        if let Some(behind) = rest.strip_prefix('$') {
            result.push("$");
            rest = behind;
        } else if let Some(braced) = rest.strip_prefix('{') {
            let Some((inner, behind)) = closed(braced) else {
                result.push("$");
                continue;
            };
            let name = &inner[..word_end(inner)];
            let how = &inner[name.len()..];
            if name.is_empty() {
                result.push(&format!("${{{inner}}}"));
                rest = behind;
                continue;
            }
            let mut otherwise = String::new();
            if let Some(default) = how.strip_prefix(":-").or_else(|| how.strip_prefix('-')) {
                // A default may name another variable, whose own default it is then.
                otherwise = interpolated(default).0.by_default();
            } else if how.starts_with(":?") || how.starts_with('?') {
                needed.push(name.to_owned());
            }
            match how.strip_prefix(":+").or_else(|| how.strip_prefix('+')) {
                // What stands for a variable that is set is nothing when it is not.
                Some(_) => needed.push(name.to_owned()),
                None => result.0.push(Piece::Env { name: name.to_owned(), otherwise }),
            }
            rest = behind;
        } else {
            let name = &rest[..word_end(rest)];
            match name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                true => result.0.push(Piece::Env { name: name.to_owned(), otherwise: String::new() }),
                false => result.push(&format!("${name}")),
            }
            rest = &rest[name.len()..];
        }
    }
    result.push(rest);
    (result, needed)
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Up to the `}` that closes it, and what comes behind.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
        // Beyond it nobody nests defaults.
        if depth > 8 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_variables() {
        let (text, _) = interpolated("run --a=${A:-x} 'b ${B}' c");
        let words: Vec<String> = words(&text).iter().map(Text::by_default).collect();
        assert_eq!(words, ["run", "--a=x", "b ", "c"]);
    }

    #[test]
    fn variables_come_out_with_what_stands_for_them() {
        let check = |text: &str, default: &str, names: &[&str]| {
            let (read, _) = interpolated(text);
            assert_eq!((read.by_default().as_str(), read.variables().as_slice()), (default, names), "{text}");
        };
        check("plain", "plain", &[]);
        check("a$$b$", "a$b$", &[]);
        check("${A:-x}:${B-y}-$C!", "x:y-!", &["A", "B", "C"]);
        check("${A:-${B:-deep}}", "deep", &["A"]);
        check("${A", "${A", &[]);
        check("${}", "${}", &[]);
        check("$1 ${A:?set it}", "$1 ", &["A"]);
        check("${A:+on}", "", &[]);
        assert_eq!(interpolated("${A:?x}${B?}").1, ["A", "B"]);
        let deep = "${A:-".repeat(50_000);
        assert!(interpolated(&deep).0.fixed().is_some());
    }
}

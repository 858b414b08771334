//! What stars printed: `hello-1 | text`, each star in its colour.

use std::io;

use api::{Client, LogPart, LogQuery, LogReader, LogRecord};
use model::Problem;

use crate::cli::{Form, Logs};
use crate::moment;
use crate::screen::{self, Paint};

pub(crate) async fn logs(client: &Client, args: Logs, form: Form) -> Result<u8, Problem> {
    let since = args.since.map(|since| since.moment(moment::now()));
    let which = LogQuery {
        target: args.name,
        follow: args.follow,
        tail: args.tail.or(since.map(|_| api::TAIL_MAX)),
        since,
        stream: match (args.stdout, args.stderr) {
            (true, _) => Some(LogPart::Stdout),
            (_, true) => Some(LogPart::Stderr),
            _ => None,
        },
        previous: args.previous,
    };
    let mut printer = Printer { timestamps: args.timestamps, ..Printer::new(form) };
    let mut records = client.logs(&which).await?;
    tokio::select! {
        ended = print_all(&mut records, &mut printer) => ended?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(0)
}

/// Prints records until there are no more.
pub(crate) async fn print_all(records: &mut LogReader, printer: &mut Printer) -> Result<(), Problem> {
    while let Some(record) = records.next().await {
        printer.print(&record?);
    }
    Ok(())
}

/// Prints records in columns that grow with the longest name seen.
pub(crate) struct Printer {
    form: Form,
    paint: Paint,
    width: usize,
    timestamps: bool,
}

impl Printer {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, paint: Paint::for_stream(&io::stdout()), width: 0, timestamps: false }
    }

    pub(crate) fn print(&mut self, record: &LogRecord) {
        if self.form == Form::Json {
            // One object a line, so that a program can read on while lines come.
            screen::line(serde_json::to_string(record).unwrap_or_default());
            return;
        }
        self.width = self.width.max(record.name.chars().count());
        let name = format!("{:width$} |", record.name, width = self.width);
        // Neighbouring stars differ in the last number of their names.
        let number = record.name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(record.star.0);
        let name = if record.error { self.paint.red(&name) } else { self.paint.nth(number, &name) };
        let at = if self.timestamps { format!("{} ", moment::clock_time(record.at)) } else { String::new() };
        screen::line(format!("{at}{name} {}", printable(&record.text)));
    }
}

/// What a star prints must not move the cursor, change the terminal of whoever reads it or hide what others print; colours
/// may pass, to the end of the line.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut coloured = false;
    let mut rest = text;
    while let Some(at) = rest.find(misleads) {
        clean.push_str(&rest[..at]);
        let colour = rest[at..].strip_prefix("\x1b[").and_then(|codes| {
            let end = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            // 8 conceals.
            let conceals = codes[..end].split(';').any(|code| code.trim_start_matches('0') == "8");
            (codes[end..].starts_with('m') && !conceals).then(|| &rest[at..at + 2 + end + 1])
        });
        match colour {
            Some(colour) => {
                clean.push_str(colour);
                coloured = !matches!(colour, "\x1b[0m" | "\x1b[m");
                rest = &rest[at + colour.len()..];
            }
            None => {
                let control = rest[at..].chars().next().map_or(1, char::len_utf8);
                clean.extend(rest[at..at + control].chars().flat_map(char::escape_default));
                rest = &rest[at + control..];
            }
        }
    }
    clean.push_str(rest);
    if coloured {
        clean.push_str("\x1b[0m");
    }
    clean
}

/// Controls, what turns the direction of text round, and what is not seen (Unicode 15, 23.2 and 23.3).
fn misleads(c: char) -> bool {
    let is_unseen = matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    (c.is_control() && c != '\t') || is_unseen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stars_text_may_be_coloured_but_not_control_the_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("plain\ttext ä", "plain\ttext ä");
        check("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m");
        check("\x1b[2Jgone", "\\u{1b}[2Jgone");
        check("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}");
        check("back\rwards", "back\\rwards");
        check("\x1b[31mred", "\x1b[31mred\x1b[0m");
        check("\x1b[8mhidden", "\\u{1b}[8mhidden");
        check("\x1b[1;08mhidden", "\\u{1b}[1;08mhidden");
        check("turned \u{202e}round", "turned \\u{202e}round");
    }
}

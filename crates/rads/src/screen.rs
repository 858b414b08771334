//! What goes to the terminal: lines that end quietly when nobody reads on, colours only where they are seen, tables
//! for people and JSON for programs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use model::{Code, Problem};
use serde::Serialize;

/// Writes to standard output. A reader that has gone away (`rads c logs | head`) ends the program quietly: there is
/// nobody left to work for.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        problem(&unwritable(&error));
        std::process::exit(1);
    }
}

/// Output that nobody will see.
pub(crate) fn unwritable(error: &io::Error) -> Problem {
    let error = match error.kind() {
        io::ErrorKind::StorageFull => "no space left on the device".to_owned(),
        _ => error.to_string().to_lowercase(),
    };
    Problem::new(Code::FileUnwritable, format!("cannot write to standard output: {error}"))
}

/// One line to standard output.
pub(crate) fn line(text: impl AsRef<str>) {
    print(&format!("{}\n", text.as_ref()));
}

/// One line about what is going on, for people: to standard error, so that output stays clean for programs.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Asks a question that is answered with yes or no; nothing where nobody can be asked.
pub(crate) fn ask(question: &str) -> Result<Option<bool>, Problem> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(None);
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().read_line(&mut answer));
    read.map_err(|error| Problem::new(Code::Usage, format!("no answer can be read: {error}")).help("use `--yes`"))?;
    Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
}

/// One value as JSON, for programs.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    line(text);
    Ok(())
}

/// Says what went wrong, in colour on a terminal.
pub(crate) fn problem(problem: &Problem) {
    let text = problem.to_string();
    let paint = Paint::for_stream(&io::stderr());
    let text = match text.split_once(": ") {
        Some((head, rest)) => format!("{}: {}", paint.red(head), rest.replace("\nhelp:", &paint.bold_line("help:"))),
        None => text,
    };
    note(text);
    if problem.changed {
        note("note: something was changed before this happened, or may have been; see `rads c status`");
    }
}

/// The same for programs: one line of JSON.
pub(crate) fn problem_as_json(problem: &Problem) {
    note(serde_json::to_string(problem).unwrap_or_else(|_| problem.to_string()));
}

/// Colours, or their absence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Colours when the stream is a terminal and nobody objects (`NO_COLOR`, see no-color.org).
    pub(crate) fn for_stream(stream: &impl IsTerminal) -> Self {
        let objected = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: stream.is_terminal() && !objected && !dumb }
    }

    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// A colour for the nth of several sources of lines; red is kept for errors.
    pub(crate) fn nth(self, n: u64, text: &str) -> String {
        const COLOURS: [&str; 5] = ["36", "33", "32", "35", "34"];
        self.wrap(COLOURS[(n % COLOURS.len() as u64) as usize], text)
    }

    fn bold_line(self, text: &str) -> String {
        format!("\n{}", self.bold(text))
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A table without borders: columns two spaces apart, numbers to the right.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    title: &'static str,
    right: bool,
}

impl Table {
    /// Titles of columns; one that starts with `>` is a column of numbers.
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => Column { title, right: true },
            None => Column { title, right: false },
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn render(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|n| lines.iter().filter_map(|cells| cells.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for cells in lines {
            let mut rendered = String::new();
            for ((column, &width), cell) in self.columns.iter().zip(&widths).zip(cells) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match column.right {
                    true => rendered.extend([&padding, cell.as_str(), "  "]),
                    false => rendered.extend([cell.as_str(), &padding, "  "]),
                }
            }
            text.push_str(rendered.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A length of time as people say it: the two largest units.
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, 0) => format!("{} ms", length.as_millis()),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// How long something took: a short time is told more closely than an age.
pub(crate) fn elapsed(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => duration(time),
    }
}

/// `1 star`, `2 stars`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(&["NAME", ">CPU", "NOTE"]);
        table.row(["hello-1".into(), "2 %".into(), String::new()]);
        table.row(["b".into(), "100 %".into(), "ä note".into()]);
        assert_eq!(table.render(), "NAME       CPU  NOTE\nhello-1    2 %\nb        100 %  ä note\n");
    }

    #[test]
    fn lengths_of_time_read_as_people_say_them() {
        let check = |ms: u64, expected: &str| assert_eq!(duration(Duration::from_millis(ms)), expected);
        check(41, "41 ms");
        check(59_900, "59 s");
        check(61_000, "1 min 1 s");
        check(3_600_000, "1 h 0 min");
        check(90_000_000, "1 d 1 h");
        assert_eq!(elapsed(Duration::from_millis(1_240)), "1.2 s");
    }
}

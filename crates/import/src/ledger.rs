//! The book of the input: every value of it, and the line of the report that tells of it.
//!
//! A value is told once; what is told again is not counted again. What nobody has told at the end is told here.

use std::collections::BTreeSet;

use crate::report::{Line, Place, Verdict};
use crate::tree::{Node, Value};

/// A value, or a list or map of values.
struct Cell {
    place: Place,
    end: usize,
    is_leaf: bool,
    told: bool,
}

pub(crate) struct Ledger {
    cells: Vec<Cell>,
    /// With the number of the cell that each is about, which is the order they are read in.
    lines: Vec<(usize, Line)>,
    said: BTreeSet<(usize, String)>,
    /// Of the app, when it has one: its secrets are set in it.
    pub(crate) namespace: Option<String>,
}

/// What a line says, and what to do about it.
pub(crate) struct Said {
    text: String,
    help: Option<String>,
}

impl<T: Into<String>> From<T> for Said {
    fn from(text: T) -> Self {
        Self { text: text.into(), help: None }
    }
}

/// Adds the next step to the words of a line.
pub(crate) trait WithHelp {
    fn help(self, help: impl Into<String>) -> Said;
}

impl<T: Into<String>> WithHelp for T {
    fn help(self, help: impl Into<String>) -> Said {
        Said { text: self.into(), help: Some(help.into()) }
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { cells: Vec::new(), lines: Vec::new(), said: BTreeSet::new(), namespace: None }
    }

    /// Enters a document: everything in it must be told from now on. `path` is what its keys are shown below.
    pub(crate) fn enter(&mut self, node: &mut Node, file: &str, path: &str) {
        node.id = self.cells.len();
        // However long keys are, what is within them costs no more for it.
        let path = &one_line(path);
        let place = Place { file: file.to_owned(), line: node.line, path: path.trim_end().to_owned() };
        self.cells.push(Cell { place, end: 0, is_leaf: node.is_leaf(), told: false });
        match &mut node.value {
            Value::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.enter(item, file, &format!("{path}[{at}]"));
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    let dot = if path.is_empty() || key.is_empty() || path.ends_with(' ') { "" } else { "." };
                    self.enter(value, file, &format!("{path}{dot}{key}"));
                }
            }
            Value::Null | Value::Scalar { .. } => {}
        }
        node.end = self.cells.len();
        self.cells[node.id].end = node.end;
    }

    /// The app says it.
    pub(crate) fn carried(&mut self, node: &Node, said: impl Into<Said>) {
        self.tell(Verdict::Carried, node, said);
    }

    /// The app says something near it.
    pub(crate) fn changed(&mut self, node: &Node, said: impl Into<Said>) {
        self.tell(Verdict::Changed, node, said);
    }

    /// The app does not say it.
    pub(crate) fn left(&mut self, node: &Node, said: impl Into<Said>) {
        self.tell(Verdict::NotCarried, node, said);
    }

    /// Tells of all within a node that has not been told yet.
    pub(crate) fn tell(&mut self, verdict: Verdict, node: &Node, said: impl Into<Said>) {
        let mut values = 0;
        for cell in self.cells.get_mut(node.id..node.end).unwrap_or_default() {
            if cell.is_leaf && !cell.told {
                cell.told = true;
                values += 1;
            }
        }
        self.write(verdict, node.id, said.into(), values);
    }

    /// Says something that is about no value of the input, but about what is at a node.
    pub(crate) fn note(&mut self, verdict: Verdict, node: &Node, said: impl Into<Said>) {
        self.write(verdict, node.id, said.into(), 0);
    }

    fn write(&mut self, verdict: Verdict, id: usize, said: Said, values: usize) {
        let place = self.cells.get(id).map(|cell| cell.place.clone());
        let place = place.unwrap_or_else(|| Place { file: String::new(), line: 0, path: String::new() });
        let (text, help) = (one_line(&said.text), said.help.map(|help| one_line(&help)));
        // What several services have in common is told by each of them, and reads the same.
        let is_known = values == 0 && !self.said.insert((id, text.clone()));
        self.said.insert((id, text.clone()));
        if is_known {
            return;
        }
        self.lines.push((id, Line { verdict, place, text, help, values }));
    }

    /// How a secret gets its value.
    pub(crate) fn how_to_set(&self, secret: &str) -> String {
        match &self.namespace {
            Some(namespace) => format!("set it with `rads c secrets set {namespace}/{secret}`"),
            None => format!("set it with `rads c secrets set {secret}`"),
        }
    }

    /// Whether something within a node has not been told yet.
    pub(crate) fn is_open(&self, node: &Node) -> bool {
        self.cells.get(node.id..node.end).unwrap_or_default().iter().any(|cell| cell.is_leaf && !cell.told)
    }

    /// Tells of what nobody has told: of the outermost things of which nothing was told, each once.
    pub(crate) fn sweep(&mut self) {
        let mut at = 0;
        while at < self.cells.len() {
            let end = self.cells[at].end.max(at + 1);
            let leaves = self.cells[at..end].iter().filter(|cell| cell.is_leaf);
            let (told, open) = leaves.fold((0, 0), |(told, open), cell| match cell.told {
                true => (told + 1, open),
                false => (told, open + 1),
            });
            match (told, open) {
                (_, 0) => at = end,
                (0, values) => {
                    self.cells[at..end].iter_mut().for_each(|cell| cell.told = true);
                    self.write(Verdict::NotCarried, at, "not known here".into(), values);
                    at = end;
                }
                _ => at += 1,
            }
        }
    }

    /// How many values there are, and the report in the order of the input.
    pub(crate) fn close(mut self) -> (usize, Vec<Line>) {
        self.lines.sort_by_key(|(id, _)| *id);
        let values = self.cells.iter().filter(|cell| cell.is_leaf).count();
        (values, self.lines.into_iter().map(|(_, line)| line).collect())
    }
}

/// Longest text of a line and of a path.
const SHOWN_MAX: usize = 400;

/// Text of the input as a line shows it: nothing in it moves a terminal's cursor, and nothing is endless.
pub(crate) fn one_line(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= SHOWN_MAX {
            shown.push('…');
            break;
        }
        match c {
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered() -> (Ledger, Node) {
        let leaf = |text: &str| Node::text(1, text);
        let inner = Node::new(2, Value::Map(vec![("x".to_owned(), leaf("1")), ("y".to_owned(), leaf("2"))]));
        let mut root = Node::new(1, Value::Map(vec![("a".to_owned(), leaf("0")), ("b".to_owned(), inner)]));
        let mut ledger = Ledger::new();
        ledger.enter(&mut root, "f", "");
        (ledger, root)
    }

    #[test]
    fn every_value_is_told_once_however_often_it_is_told() {
        let (mut ledger, root) = entered();
        ledger.carried(root.at(&["b", "x"]).unwrap(), "x");
        ledger.left(root.get("b").unwrap(), "the rest of b");
        ledger.changed(root.get("b").unwrap(), "again");
        ledger.sweep();
        let (values, lines) = ledger.close();
        assert_eq!(values, 3);
        let told: Vec<(&str, usize)> = lines.iter().map(|line| (line.place.path.as_str(), line.values)).collect();
        assert_eq!(told, [("a", 1), ("b", 1), ("b", 0), ("b.x", 1)]);
    }

    #[test]
    fn what_nobody_tells_is_told_by_the_outermost_that_is_untold() {
        let (mut ledger, root) = entered();
        ledger.carried(root.get("a").unwrap(), "a");
        assert!(ledger.is_open(root.get("b").unwrap()));
        ledger.sweep();
        let lines = ledger.close().1;
        assert_eq!((lines[1].place.path.as_str(), lines[1].values, lines[1].verdict), ("b", 2, Verdict::NotCarried));
    }

    #[test]
    fn nothing_of_the_input_moves_a_cursor() {
        assert_eq!(one_line("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert!(one_line(&"x".repeat(10_000)).len() < 500);
    }
}

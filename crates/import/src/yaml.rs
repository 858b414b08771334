//! YAML to trees: anchors and merge keys written out, with bounds on what they may become.

use std::collections::{BTreeMap, BTreeSet};

use model::{Code, Problem};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::tree::{DEPTH_MAX, NODES_MAX, Node, Value};

/// Most documents of one file.
const DOCUMENTS_MAX: usize = 1_000;

/// A document, and the names of its keys that other places refer to by anchors.
pub(crate) fn documents(file: &str, text: &str) -> Result<Vec<Node>, Problem> {
    let mut reader = Reader { file, anchors: BTreeMap::new(), nodes: 0, open: Vec::new(), documents: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let line = error.marker().line();
            let problem = faulty(file, line, &format!("it is not YAML: {}", error.info()));
            match text.contains("{{") {
                true => problem.help("it looks like a template: import what it renders to, as of `helm template`"),
                false => problem.help("mend that line first; nothing was written"),
            }
        })?;
        reader.take(event, span)?;
    }
    Ok(reader.documents)
}

fn faulty(file: &str, line: usize, why: &str) -> Problem {
    Problem::new(Code::FileUnreadable, format!("cannot read `{file}`, line {line}: {why}"))
}

/// A list or map that has not ended.
struct Open {
    anchor: usize,
    line: u32,
    is_map: bool,
    items: Vec<Node>,
}

struct Reader<'a> {
    file: &'a str,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    open: Vec<Open>,
    documents: Vec<Node>,
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        match event {
            Event::SequenceStart(anchor, _) => self.begin(anchor, line, false)?,
            Event::MappingStart(anchor, _) => self.begin(anchor, line, true)?,
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, line, is_map, items }) = self.open.pop() else { return Ok(()) };
                let value = if is_map { Value::Map(pairs(items)) } else { Value::List(items) };
                self.put(Node::new(line, value), anchor)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar { text: text.to_owned(), plain },
                };
                self.put(Node::new(line, value), anchor)?;
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| faulty(self.file, span.start.line(), "it repeats what it is part of"))?;
                self.nodes += node.count();
                self.put(node, 0)?;
            }
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, line: u32, is_map: bool) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(faulty(self.file, line as usize, &format!("it nests deeper than {DEPTH_MAX}")));
        }
        self.open.push(Open { anchor, line, is_map, items: Vec::new() });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        self.nodes += 1;
        let (line, depth) = (node.line as usize, self.open.len() + depth(&node));
        if self.nodes > NODES_MAX {
            return Err(faulty(self.file, line, &format!("it holds more than {NODES_MAX} values")));
        }
        if depth > DEPTH_MAX {
            return Err(faulty(self.file, line, &format!("it nests deeper than {DEPTH_MAX}")));
        }
        if anchor != 0 {
            self.nodes += node.count();
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None if self.documents.len() >= DOCUMENTS_MAX => {
                return Err(faulty(self.file, line, &format!("it holds more than {DOCUMENTS_MAX} documents")));
            }
            None => self.documents.push(node),
        }
        Ok(())
    }
}

fn depth(node: &Node) -> usize {
    let inner = node.items().iter().chain(node.entries().iter().map(|(_, value)| value));
    inner.map(depth).max().map_or(0, |deepest| deepest + 1)
}

/// Keys and values by turns to entries, with what `<<` merges behind them: a key that is there already is not taken from there.
fn pairs(items: Vec<Node>) -> Vec<(String, Node)> {
    let (mut entries, mut merged): (Vec<(String, Node)>, Vec<Node>) = (Vec::new(), Vec::new());
    let mut items = items.into_iter();
    while let Some(key) = items.next() {
        let value = items.next().unwrap_or_else(|| Node::new(key.line, Value::Null));
        match key.value {
            Value::Scalar { text, plain: true } if text == "<<" && (value.is_map() || value.is_list()) => {
                match value.value {
                    Value::List(list) => merged.extend(list),
                    _ => merged.push(value),
                }
            }
            Value::Scalar { text, .. } => entries.push((text, value)),
            Value::Null => entries.push(("~".to_owned(), value)),
            _ => entries.push(("?".to_owned(), value)),
        }
    }
    if merged.is_empty() {
        return entries;
    }
    let mut known: BTreeSet<String> = entries.iter().map(|(key, _)| key.clone()).collect();
    for (key, value) in merged.iter().flat_map(Node::entries) {
        if known.insert(key.clone()) {
            entries.push((key.clone(), value.clone()));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        documents("f", text).unwrap().remove(0)
    }

    #[test]
    fn anchors_and_merges_are_written_out_and_what_is_nearer_wins() {
        let text = "x-base: &base\n  image: a\n  user: '1'\nweb:\n  <<: *base\n  image: b\nlist: &l [1]\nagain: *l\n";
        let node = read(text);
        assert_eq!(node.at(&["web", "image"]).and_then(Node::scalar), Some("b"));
        assert_eq!(node.at(&["web", "user"]).and_then(Node::scalar), Some("1"));
        assert_eq!(node.at(&["web", "user"]).map(|node| node.line), Some(3));
        assert_eq!(node.get("again").unwrap().texts(), Some(vec!["1".to_owned()]));
    }

    #[test]
    fn what_would_grow_without_end_is_refused() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (one, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            let repeated = vec![format!("*{one}"); 9].join(", ");
            bomb.push_str(&format!("{next}: &{next} [{repeated}]\n"));
        }
        assert!(documents("f", &bomb).unwrap_err().message.contains("more than"));
        assert!(documents("f", &"[".repeat(100_000)).is_err());
        assert!(documents("f", &"- ".repeat(5_000)).unwrap_err().message.contains("deeper"));
        assert!(documents("f", "a: &a [*a]\n").is_err());
        assert!(documents("f", "a: {{ .Values.x }}: y\n").unwrap_err().help.unwrap().contains("helm template"));
    }

    #[test]
    fn documents_come_apart_and_words_keep_whether_they_were_quoted() {
        let all = documents("f", "---\na: yes\nb: 'yes'\nc: ~\nd:\n---\nx: 1\n").unwrap();
        assert_eq!(all.len(), 2);
        let plain = |key: &str| matches!(all[0].get(key).unwrap().value, Value::Scalar { plain: true, .. });
        assert_eq!((plain("a"), plain("b")), (true, false));
        assert!(all[0].get("c").unwrap().is_null() && all[0].get("d").unwrap().is_null());
    }
}

//! What every format is read into: values within lists and maps, each with the line it is on.

/// A value and where it is. Its number is the ledger's; those of what is within it come behind it, up to `end`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: usize,
    pub(crate) end: usize,
    pub(crate) line: u32,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    /// `plain` when nothing quoted it, so that it may have meant a number or a word such as `true`.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the input; a key that is there twice is here twice.
    Map(Vec<(String, Node)>),
}

/// Deepest nesting: no description goes beyond a dozen.
pub(crate) const DEPTH_MAX: usize = 64;
/// Most values of one file, after what it repeats by reference has been written out.
pub(crate) const NODES_MAX: usize = 100_000;

impl Node {
    pub(crate) fn new(line: u32, value: Value) -> Self {
        Self { id: 0, end: 0, line, value }
    }

    pub(crate) fn text(line: u32, text: impl Into<String>) -> Self {
        Self::new(line, Value::Scalar { text: text.into(), plain: false })
    }

    /// Of a map, what the key has; the last when it is there twice, as readers of these formats take it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().rev().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// What lies at the end of several keys.
    pub(crate) fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    pub(crate) fn entries(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Its items, or itself when it is one thing in place of a list.
    pub(crate) fn one_or_more(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            _ => std::slice::from_ref(self),
        }
    }

    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.scalar()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        self.boolean() == Some(true)
    }

    pub(crate) fn int(&self) -> Option<i64> {
        self.scalar()?.trim().parse().ok()
    }

    /// The text of what a map has at a key.
    pub(crate) fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.scalar()
    }

    /// The texts of a list; nothing when one of them is none.
    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        self.items().iter().map(|item| item.scalar().map(str::to_owned)).collect()
    }

    /// Whether it holds no other value.
    pub(crate) fn is_leaf(&self) -> bool {
        match &self.value {
            Value::Null | Value::Scalar { .. } => true,
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// Itself and everything within it.
    pub(crate) fn count(&self) -> usize {
        1 + self.items().iter().map(Self::count).sum::<usize>()
            + self.entries().iter().map(|(_, node)| node.count()).sum::<usize>()
    }
}

//! The value of an option, wherever it was written: in a script or on a command line.

use rads_vm::{Cx, Value};

/// Plain data. What a script can hold beyond it is only named.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Setting>),
    /// In the order it was written.
    Map(Vec<(String, Setting)>),
    /// A blast, a task or the like: its kind.
    Other(&'static str),
}

/// Objects within objects: no option nests deeper than two.
const DEPTH_MAX: u32 = 8;

impl Setting {
    /// Takes a value out of a machine. Values that contain themselves end as `Other`.
    pub fn from_value(cx: &Cx<'_>, value: Value) -> Self {
        Self::within(cx, value, DEPTH_MAX)
    }

    fn within(cx: &Cx<'_>, value: Value, depth: u32) -> Self {
        let Some(depth) = depth.checked_sub(1) else {
            return Self::Other("deeply nested value");
        };
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Float(value) => Self::Float(value),
            Value::Char(value) => Self::Text(value.to_string()),
            Value::Str(_) => Self::Text(cx.text(value).to_owned()),
            Value::Array(_) => Self::List(cx.items(value).iter().map(|item| Self::within(cx, *item, depth)).collect()),
            Value::Object(_) | Value::Struct(_) => {
                let entries = cx.entries(value).into_iter();
                Self::Map(entries.map(|(key, value)| (key, Self::within(cx, value, depth))).collect())
            }
            Value::Function(_) | Value::Native(_) => Self::Other("function"),
            _ => Self::Other("object of another kind"),
        }
    }

    /// As a message names it: its kind and, when short, itself.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Int(value) => format!("`{value}`"),
            Self::Float(value) => format!("`{value}`"),
            Self::Text(text) => {
                const SHOWN_CHARS: usize = 40;
                let short: String = text.chars().take(SHOWN_CHARS).collect();
                let dots = if short.len() < text.len() { "…" } else { "" };
                format!("\"{}{dots}\"", short.escape_debug())
            }
            Self::List(_) => "an array".to_owned(),
            Self::Map(_) => "an object".to_owned(),
            Self::Other(kind) => format!("a {kind}"),
        }
    }
}

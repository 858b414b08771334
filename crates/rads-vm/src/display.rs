//! Values as text, and when two values are equal. Both walk with a stack of their own, so deep or circular data cannot
//! exhaust the host's.

use std::fmt::Write;

use crate::cx::Cx;
use crate::heap::{Heap, Obj};
use crate::value::{Handle, Value};

/// Nesting beyond this prints as `…`: nobody reads further, and circular data ends.
const MOST_NESTING: usize = 64;

/// Texts longer than this are cut: a value that contains itself many times would otherwise print for ever.
const MOST_TEXT: usize = 64 << 20;

impl Cx<'_> {
    /// The text that `echo` and `"" + value` give.
    pub fn display(&self, value: Value) -> String {
        let mut text = String::new();
        self.heap.display(value, &mut text);
        text
    }

    /// What `==` decides: numbers by value (`1 == 1.0`), texts, arrays, objects and structs by content, everything else by
    /// identity.
    pub fn equal(&self, left: Value, right: Value) -> bool {
        self.heap.equal(left, right)
    }
}

enum Piece {
    Value(Value),
    Text(&'static str),
    Key(String),
    /// The end of a collection: it is no longer open.
    Close(&'static str),
}

impl Heap {
    pub(crate) fn display(&self, value: Value, out: &mut String) {
        match value {
            Value::Array(_) | Value::Object(_) | Value::Struct(_) => self.display_nested(value, out),
            _ => self.display_plain(value, out),
        }
    }

    fn display_nested(&self, value: Value, out: &mut String) {
        let start = out.len();
        let mut todo = vec![Piece::Value(value)];
        let mut open: Vec<Handle> = Vec::new();
        while let Some(piece) = todo.pop() {
            if out.len() - start > MOST_TEXT {
                out.push('…');
                return;
            }
            let value = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Key(key) => {
                    out.push_str(&key);
                    continue;
                }
                Piece::Close(text) => {
                    out.push_str(text);
                    open.pop();
                    continue;
                }
                Piece::Value(value) => value,
            };
            let (Value::Array(handle) | Value::Object(handle) | Value::Struct(handle)) = value else {
                self.display_plain(value, out);
                continue;
            };
            if open.contains(&handle) || open.len() >= MOST_NESTING {
                out.push('…');
                continue;
            }
            open.push(handle);
            if let Value::Array(_) = value {
                out.push('[');
                todo.push(Piece::Close("]"));
                for (n, item) in self.items(handle).iter().enumerate().rev() {
                    todo.push(Piece::Value(*item));
                    if n > 0 {
                        todo.push(Piece::Text(", "));
                    }
                }
            } else {
                if let Obj::Record { shape, .. } = self.get(handle)
                    && let Some(def) = self.shapes.get(*shape).of
                {
                    out.push_str(&self.program.structs[def as usize].name);
                    out.push(' ');
                }
                out.push('{');
                todo.push(Piece::Close("}"));
                for (n, (key, value)) in self.fields(handle).into_iter().enumerate().rev() {
                    todo.push(Piece::Value(value));
                    let comma = if n > 0 { ", " } else { "" };
                    todo.push(Piece::Key(format!("{comma}{}: ", KeyText(key))));
                }
            }
        }
    }

    fn display_plain(&self, value: Value, out: &mut String) {
        let _ = match value {
            Value::Null | Value::Absent | Value::Cell(_) => out.write_str("null"),
            Value::Bool(b) => write!(out, "{b}"),
            Value::Int(n) => write!(out, "{n}"),
            Value::Float(n) => {
                float(n, out);
                Ok(())
            }
            Value::Char(c) => out.write_char(c),
            Value::Str(handle) => out.write_str(self.text(handle)),
            Value::Function(handle) => match self.get(handle) {
                Obj::Closure { function, .. } => write!(out, "<blast {}>", self.program.function(*function).name),
                _ => Ok(()),
            },
            Value::Native(id) => write!(out, "<blast {}>", self.natives.get(id).full_name()),
            Value::Error(handle) => match self.get(handle) {
                Obj::Error(error) => out.write_str(&error.message),
                _ => Ok(()),
            },
            Value::Bytes(handle) => match self.get(handle) {
                Obj::Bytes(bytes) => write!(out, "<{} bytes>", bytes.len()),
                _ => Ok(()),
            },
            Value::Task(handle) => match self.get(handle) {
                Obj::Task(task) if task.outcome.is_some() => write!(out, "<task {}, finished>", task.id.0),
                Obj::Task(task) => write!(out, "<task {}>", task.id.0),
                _ => Ok(()),
            },
            Value::Host(handle) => match self.get(handle) {
                Obj::Host { kind, .. } => write!(out, "<{kind}>"),
                _ => Ok(()),
            },
            Value::Array(_) | Value::Object(_) | Value::Struct(_) => Ok(()),
        };
    }

    #[inline]
    pub(crate) fn equal(&self, left: Value, right: Value) -> bool {
        match (left, right) {
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Str(a), Value::Str(b)) => a == b || self.text(a) == self.text(b),
            _ => self.equal_any(left, right),
        }
    }

    fn equal_any(&self, left: Value, right: Value) -> bool {
        let mut todo = vec![(left, right)];
        // Pairs taken to be equal while they are being compared, which ends circular data.
        let mut assumed: Vec<(Handle, Handle)> = Vec::new();
        while let Some((left, right)) = todo.pop() {
            match (left, right) {
                (Value::Array(a), Value::Array(b)) => {
                    if a == b || assumed.contains(&(a, b)) {
                        continue;
                    }
                    let (x, y) = (self.items(a), self.items(b));
                    if x.len() != y.len() {
                        return false;
                    }
                    if assumed.len() < MOST_NESTING {
                        assumed.push((a, b));
                    }
                    todo.extend(x.iter().copied().zip(y.iter().copied()));
                }
                (Value::Object(a), Value::Object(b)) | (Value::Struct(a), Value::Struct(b)) => {
                    if a == b || assumed.contains(&(a, b)) {
                        continue;
                    }
                    if self.field_count(a) != self.field_count(b) || self.struct_of(a) != self.struct_of(b) {
                        return false;
                    }
                    if assumed.len() < MOST_NESTING {
                        assumed.push((a, b));
                    }
                    for (key, value) in self.fields(a) {
                        match self.field(b, crate::record::Key::Text(key)) {
                            Some(other) => todo.push((value, other)),
                            None => return false,
                        }
                    }
                }
                _ if self.equal_plain(left, right) => {}
                _ => return false,
            }
        }
        true
    }

    fn equal_plain(&self, left: Value, right: Value) -> bool {
        match (left, right) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => int_equals_float(a, b),
            (Value::Char(a), Value::Char(b)) => a == b,
            (Value::Char(c), Value::Int(n)) | (Value::Int(n), Value::Char(c)) => i64::from(u32::from(c)) == n,
            (Value::Char(c), Value::Str(s)) | (Value::Str(s), Value::Char(c)) => {
                let mut chars = self.text(s).chars();
                chars.next() == Some(c) && chars.next().is_none()
            }
            (Value::Str(a), Value::Str(b)) => self.text(a) == self.text(b),
            (Value::Bytes(a), Value::Bytes(b)) => match (self.get(a), self.get(b)) {
                (Obj::Bytes(x), Obj::Bytes(y)) => x == y,
                _ => false,
            },
            (Value::Native(a), Value::Native(b)) => a == b,
            (Value::Host(a), Value::Host(b)) => match (self.get(a), self.get(b)) {
                (Obj::Host { kind: k, id: i }, Obj::Host { kind: l, id: j }) => k == l && i == j,
                _ => false,
            },
            (Value::Function(a), Value::Function(b))
            | (Value::Error(a), Value::Error(b))
            | (Value::Task(a), Value::Task(b)) => a == b,
            _ => false,
        }
    }

    pub(crate) fn struct_of(&self, handle: Handle) -> Option<u32> {
        match self.get(handle) {
            Obj::Record { shape, .. } => self.shapes.get(*shape).of,
            _ => None,
        }
    }
}

/// The first float beyond the ints.
const TWO_TO_63: f64 = (1u64 << 63) as f64;

/// Exact: a float beyond 2^53 is not equal to an int it merely rounds to.
fn int_equals_float(int: i64, float: f64) -> bool {
    float.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&float) && float as i64 == int
}

struct KeyText<'a>(&'a str);

impl std::fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |c: char| c.is_alphanumeric() || c == '_';
        if !self.0.is_empty() && self.0.chars().all(name) { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

/// The shortest text that reads back as the same number; integral floats without a point, large and small ones with an
/// exponent as in other languages.
pub(crate) fn float(n: f64, out: &mut String) {
    let magnitude = n.abs();
    let _ = if n.is_nan() {
        out.write_str("nan")
    } else if n.is_infinite() {
        out.write_str(if n > 0.0 { "inf" } else { "-inf" })
    } else if n != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{n:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(out, "{digits}e+{exponent}"),
            _ => out.write_str(&text),
        }
    } else if n == 0.0 {
        out.write_str("0")
    } else {
        write!(out, "{n}")
    };
}

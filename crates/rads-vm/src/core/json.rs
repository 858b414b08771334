//! `json.parse` and `json.stringify`. Both keep what is open on a stack of their own with a bound, so no input can exhaust
//! the host's stack.

use std::fmt::Write;

use super::functions;
use crate::cx::{Cx, with_article};
use crate::heap::{Obj, SLOT_BYTES};
use crate::native::NativesBuilder;
use crate::value::{Handle, Value};

type Done = Result<Value, Value>;

/// Arrays and objects inside each other beyond this are refused, in both directions.
const MOST_DEPTH: usize = 512;

pub(super) fn register(builder: &mut NativesBuilder) {
    functions(
        builder,
        "json",
        &[("parse", 1, 1, parse), ("stringify", 1, 2, stringify), ("encode", 1, 2, stringify), ("decode", 1, 1, parse)],
    );
}

fn parse(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let text: Box<str> = match cx.arg(args, 0) {
        Value::Bytes(_) => match std::str::from_utf8(cx.as_bytes(args[0]).unwrap_or_default()) {
            Ok(text) => text.into(),
            Err(_) => return Err(cx.error("json", "the bytes are not UTF-8")),
        },
        _ => cx.arg_text(args, 0, "text")?.into(),
    };
    let mut parser = Parser { text: &text, at: 0 };
    match parser.document(cx) {
        Ok(value) => Ok(value),
        Err(Problem::Thrown(value)) => Err(value),
        Err(Problem::Syntax(what)) => {
            let before = &text[..text.floor_char_boundary(parser.at)];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            Err(cx.error("json", format!("{what} at line {line}, column {column}")))
        }
    }
}

enum Problem {
    Syntax(&'static str),
    Thrown(Value),
}

/// An array or object whose end has not come.
enum Open {
    Array(Value),
    Object(Value, String),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn document(&mut self, cx: &mut Cx<'_>) -> Result<Value, Problem> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut value = match self.peek() {
                Some(b'[') => {
                    self.at += 1;
                    let array = cx.array(Vec::new());
                    if self.peek() == Some(b']') {
                        self.at += 1;
                        array
                    } else {
                        push_open(&mut open, Open::Array(array))?;
                        continue;
                    }
                }
                Some(b'{') => {
                    self.at += 1;
                    let object = cx.object();
                    if self.peek() == Some(b'}') {
                        self.at += 1;
                        object
                    } else {
                        let key = self.key()?;
                        push_open(&mut open, Open::Object(object, key))?;
                        continue;
                    }
                }
                _ => self.scalar(cx)?,
            };
            cx.reserve(SLOT_BYTES).map_err(Problem::Thrown)?;
            // The value completes as many collections as end right after it.
            loop {
                match open.last_mut() {
                    None => {
                        return if self.peek().is_none() { Ok(value) } else { Err(Problem::Syntax("unexpected text")) };
                    }
                    Some(Open::Array(array)) => {
                        cx.push(*array, value);
                        match self.peek() {
                            Some(b',') => {
                                self.at += 1;
                                break;
                            }
                            Some(b']') => value = *array,
                            _ => return Err(Problem::Syntax("expected `,` or `]`")),
                        }
                    }
                    Some(Open::Object(object, key)) => {
                        cx.set(*object, key, value);
                        match self.peek() {
                            Some(b',') => {
                                self.at += 1;
                                *key = self.key()?;
                                break;
                            }
                            Some(b'}') => value = *object,
                            _ => return Err(Problem::Syntax("expected `,` or `}`")),
                        }
                    }
                }
                self.at += 1;
                open.pop();
            }
        }
    }

    /// The next byte that is not white space, not taken.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn key(&mut self) -> Result<String, Problem> {
        if self.peek() != Some(b'"') {
            return Err(Problem::Syntax("expected a key in double quotes"));
        }
        let key = self.quoted()?;
        if self.peek() != Some(b':') {
            return Err(Problem::Syntax("expected `:`"));
        }
        self.at += 1;
        Ok(key)
    }

    fn scalar(&mut self, cx: &mut Cx<'_>) -> Result<Value, Problem> {
        let word = |text: &str| text.bytes().take_while(u8::is_ascii_alphabetic).count();
        match self.peek() {
            Some(b'"') => {
                let text = self.quoted()?;
                cx.reserve(text.len()).map_err(Problem::Thrown)?;
                Ok(cx.string(text))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z') => {
                let length = word(&self.text[self.at..]);
                let value = match &self.text[self.at..self.at + length] {
                    "null" => Value::Null,
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    _ => return Err(Problem::Syntax("unknown word")),
                };
                self.at += length;
                Ok(value)
            }
            None => Err(Problem::Syntax("unexpected end")),
            Some(_) => Err(Problem::Syntax("expected a value")),
        }
    }

    fn number(&mut self) -> Result<Value, Problem> {
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(|b| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')).count();
        let digits = &rest[..length];
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        let leading_zero = unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1].is_ascii_digit();
        let bare_point = unsigned.starts_with('.') || digits.ends_with('.') || digits.contains(".e");
        if leading_zero || bare_point || unsigned.is_empty() {
            return Err(Problem::Syntax("malformed number"));
        }
        let integral = !digits.contains(['.', 'e', 'E']);
        let value = match digits.parse::<i64>() {
            Ok(n) if integral => Value::Int(n),
            _ => match digits.parse::<f64>() {
                Ok(n) => Value::Float(n),
                Err(_) => return Err(Problem::Syntax("malformed number")),
            },
        };
        self.at += length;
        Ok(value)
    }

    /// The content of a string; the opening quote is next.
    fn quoted(&mut self) -> Result<String, Problem> {
        self.at += 1;
        let bytes = self.text.as_bytes();
        let mut content = String::new();
        loop {
            let start = self.at;
            while bytes.get(self.at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            content.push_str(&self.text[start..self.at]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(content);
                }
                Some(b'\\') => {
                    self.at += 1;
                    content.push(self.escape()?);
                }
                Some(_) => return Err(Problem::Syntax("a control character must be escaped")),
                None => return Err(Problem::Syntax("the string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let escaped = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        Ok(match escaped {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'u') => {
                let first = self.hex()?;
                if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let second = self.hex()?;
                    let low = second.wrapping_sub(0xdc00) & 0x3ff;
                    let code = 0x10000 + ((first - 0xd800) << 10) + low;
                    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                } else {
                    char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            }
            _ => return Err(Problem::Syntax("unknown escape")),
        })
    }

    fn hex(&mut self) -> Result<u32, Problem> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        self.at += 4;
        code.ok_or(Problem::Syntax("`\\u` needs four hexadecimal digits"))
    }
}

fn push_open(open: &mut Vec<Open>, new: Open) -> Result<(), Problem> {
    if open.len() >= MOST_DEPTH {
        return Err(Problem::Syntax("nested too deeply"));
    }
    open.push(new);
    Ok(())
}

/// What is left to write.
enum Todo {
    Value(Value, usize),
    Key(String, bool, usize),
    Comma(usize),
    End(char, usize, bool),
}

/// `stringify(value, indent = 0)`
fn stringify(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let indent = match cx.arg(args, 1) {
        Value::Null => 0,
        _ => usize::try_from(cx.arg_int(args, 1, "indent")?).unwrap_or(0).min(16),
    };
    let mut out = String::new();
    let mut todo = vec![Todo::Value(args[0], 0)];
    let mut open: Vec<Handle> = Vec::new();
    let line = |out: &mut String, depth: usize| {
        if indent > 0 {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    while let Some(next) = todo.pop() {
        if out.len() & !0xfff != 0 {
            cx.reserve(out.len())?;
        }
        let (value, depth) = match next {
            Todo::Value(value, depth) => (value, depth),
            Todo::Comma(depth) => {
                out.push(',');
                line(&mut out, depth);
                continue;
            }
            Todo::Key(key, first, depth) => {
                if !first {
                    out.push(',');
                }
                line(&mut out, depth);
                quote(&key, &mut out);
                out.push_str(if indent > 0 { ": " } else { ":" });
                continue;
            }
            Todo::End(close, depth, empty) => {
                if !empty {
                    line(&mut out, depth);
                }
                out.push(close);
                open.pop();
                continue;
            }
        };
        let (Value::Array(handle) | Value::Object(handle) | Value::Struct(handle)) = value else {
            scalar(cx, value, &mut out)?;
            continue;
        };
        if open.contains(&handle) {
            return Err(cx.error("json", "the value contains itself"));
        }
        if open.len() >= MOST_DEPTH {
            return Err(cx.error("json", "nested too deeply"));
        }
        open.push(handle);
        if let Value::Array(_) = value {
            out.push('[');
            let items = cx.heap.items(handle);
            todo.push(Todo::End(']', depth, items.is_empty()));
            for (n, item) in items.iter().enumerate().rev() {
                todo.push(Todo::Value(*item, depth + 1));
                if n > 0 {
                    todo.push(Todo::Comma(depth + 1));
                }
            }
            if !items.is_empty() {
                line(&mut out, depth + 1);
            }
        } else {
            out.push('{');
            let fields = cx.entries(value);
            todo.push(Todo::End('}', depth, fields.is_empty()));
            for (n, (key, value)) in fields.into_iter().enumerate().rev() {
                todo.push(Todo::Value(value, depth + 1));
                todo.push(Todo::Key(key, n == 0, depth + 1));
            }
        }
    }
    cx.reserve(out.len())?;
    Ok(cx.string(out))
}

fn scalar(cx: &mut Cx<'_>, value: Value, out: &mut String) -> Result<(), Value> {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) => cx.heap.display(value, out),
        Value::Float(n) if n.is_finite() => {
            // A float stays one when it is read back.
            let start = out.len();
            crate::display::float(n, out);
            if !out[start..].contains(['.', 'e']) {
                out.push_str(".0");
            }
        }
        Value::Float(_) => out.push_str("null"),
        Value::Str(handle) => quote(cx.text_of(handle), out),
        Value::Char(c) => quote(c.encode_utf8(&mut [0; 4]), out),
        Value::Error(handle) => {
            if let Obj::Error(error) = cx.heap.get(handle) {
                quote(&error.message, out);
            }
        }
        other => {
            let kind = with_article(other.kind());
            return Err(cx.error("json", format!("{kind} has no JSON form")));
        }
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

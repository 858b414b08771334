//! What needs no module: `echo`, `error`, conversions, and methods that every plain kind has.

use super::{Entry, functions, methods};
use crate::cx::Cx;
use crate::native::{NativeBody, NativesBuilder, Params};
use crate::value::Value;

pub(super) fn register(builder: &mut NativesBuilder) {
    builder.function("", "echo", Params::at_least(0), NativeBody::Pure(echo));
    builder.function("", "print", Params::at_least(0), NativeBody::Pure(print));
    functions(
        builder,
        "",
        &[
            ("error", 1, 3, error),
            ("len", 1, 1, len),
            ("int", 1, 1, int),
            ("float", 1, 1, float),
            ("str", 1, 1, to_string),
            ("char", 1, 1, char_of),
        ],
    );
    for kind in ["integer", "float", "bool", "char", "null", "array", "object", "struct", "error", "function"] {
        methods(builder, kind, &[("to_string", 1, 1, to_string)]);
    }
    methods(builder, "float", &[("to_int", 1, 1, int)]);
    methods(builder, "char", CHAR);
    methods(builder, "bytes", &[("length", 1, 1, len), ("to_string", 1, 1, decode)]);
    functions(builder, "bytes", &[("from", 1, 1, encode), ("decode", 1, 1, decode)]);
    methods(builder, "task", &[("is_finished", 1, 1, is_finished)]);
}

const CHAR: &[Entry] = &[
    ("code", 1, 1, |cx, args| Ok(args[0].as_int().map_or_else(|| cx.str(""), Value::Int))),
    ("is_digit", 1, 1, |_, args| Ok(Value::Bool(matches!(args[0], Value::Char(c) if c.is_ascii_digit())))),
    ("is_letter", 1, 1, |_, args| Ok(Value::Bool(matches!(args[0], Value::Char(c) if c.is_alphabetic())))),
    ("is_space", 1, 1, |_, args| Ok(Value::Bool(matches!(args[0], Value::Char(c) if c.is_whitespace())))),
    ("is_upper", 1, 1, |_, args| Ok(Value::Bool(matches!(args[0], Value::Char(c) if c.is_uppercase())))),
    ("is_lower", 1, 1, |_, args| Ok(Value::Bool(matches!(args[0], Value::Char(c) if c.is_lowercase())))),
    ("upper", 1, 1, |cx, args| {
        let text = cx.display(args[0]).to_uppercase();
        Ok(one_char(cx, text))
    }),
    ("lower", 1, 1, |cx, args| {
        let text = cx.display(args[0]).to_lowercase();
        Ok(one_char(cx, text))
    }),
];

/// A char when the text is one, a string otherwise: the capital of `ß` is two letters.
fn one_char(cx: &mut Cx<'_>, text: String) -> Value {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Value::Char(c),
        _ => cx.string(text),
    }
}

fn put(cx: &mut Cx<'_>, args: &[Value]) {
    for (n, arg) in args.iter().enumerate() {
        if n > 0 {
            cx.heap.out.push(' ');
        }
        let mut out = std::mem::take(&mut cx.heap.out);
        cx.heap.display(*arg, &mut out);
        cx.heap.out = out;
    }
}

fn echo(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    put(cx, args);
    cx.heap.out.push('\n');
    Ok(Value::Null)
}

fn print(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    put(cx, args);
    Ok(Value::Null)
}

/// `error(message, kind = "error", data = null)`
fn error(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let message = cx.display(args[0]);
    let kind = match cx.arg(args, 1) {
        Value::Null => "error".to_owned(),
        _ => cx.arg_text(args, 1, "kind")?.to_owned(),
    };
    let data = cx.arg(args, 2);
    Ok(cx.error_with(&kind, message, data))
}

fn len(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let length = match args[0] {
        Value::Str(handle) => cx.heap.char_count(handle),
        Value::Array(_) => cx.items(args[0]).len(),
        Value::Object(_) | Value::Struct(_) => cx.field_count(args[0]),
        Value::Bytes(_) => cx.as_bytes(args[0]).map_or(0, <[u8]>::len),
        other => return Err(cx.wrong("value", "a string, array, object or bytes", other)),
    };
    Ok(Value::Int(length as i64))
}

fn int(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    match args[0] {
        Value::Int(_) => Ok(args[0]),
        Value::Bool(b) => Ok(Value::Int(i64::from(b))),
        Value::Float(n) if n.is_finite() && n.abs() < 9.2e18 => Ok(Value::Int(n as i64)),
        Value::Float(n) => Err(cx.error("value", format!("{n} does not fit an integer"))),
        Value::Char(c) => Ok(Value::Int(i64::from(u32::from(c)))),
        Value::Str(_) => super::text::parse_int(cx, args),
        other => Err(cx.wrong("value", "a number or string", other)),
    }
}

fn float(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    match args[0] {
        Value::Int(n) => Ok(Value::Float(n as f64)),
        Value::Float(_) => Ok(args[0]),
        Value::Str(_) => super::text::parse_float(cx, args),
        other => Err(cx.wrong("value", "a number or string", other)),
    }
}

fn char_of(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let code = cx.arg_int(args, 0, "code")?;
    match u32::try_from(code).ok().and_then(char::from_u32) {
        Some(c) => Ok(Value::Char(c)),
        None => Err(cx.error("value", format!("{code} is not the code of a char"))),
    }
}

fn to_string(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    if let Value::Str(_) = args[0] {
        return Ok(args[0]);
    }
    let text = cx.display(args[0]);
    cx.reserve(text.len())?;
    Ok(cx.string(text))
}

fn encode(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let bytes = match args[0] {
        Value::Array(_) => {
            let numbers = cx.items(args[0]).iter().map(|v| v.as_int().and_then(|n| u8::try_from(n).ok()));
            match numbers.collect::<Option<Vec<u8>>>() {
                Some(bytes) => bytes,
                None => return Err(cx.error("value", "bytes are integers from 0 to 255")),
            }
        }
        _ => {
            let length = cx.arg_text(args, 0, "text")?.len();
            cx.reserve(length)?;
            cx.text(args[0]).as_bytes().to_vec()
        }
    };
    Ok(cx.bytes(bytes))
}

fn decode(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let Some(bytes) = cx.as_bytes(args[0]) else { return Err(cx.wrong("value", "bytes", args[0])) };
    let text = String::from_utf8_lossy(bytes).into_owned();
    cx.reserve(text.len())?;
    Ok(cx.string(text))
}

fn is_finished(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let finished = match args[0] {
        Value::Task(handle) => {
            matches!(cx.heap.get(handle), crate::heap::Obj::Task(task) if task.outcome.is_some())
        }
        _ => false,
    };
    Ok(Value::Bool(finished))
}

//! `str.*`, also called `string.*`, and the methods of strings. Positions and lengths count chars.

use super::{Entry, functions, methods, strings};
use crate::cx::Cx;
use crate::native::NativesBuilder;
use crate::value::{Handle, Value};

type Done = Result<Value, Value>;

pub(super) fn register(builder: &mut NativesBuilder) {
    functions(builder, "str", TABLE);
    methods(builder, "string", TABLE);
    functions(builder, "str", &[("join", 1, 2, join), ("from_char_code", 1, 1, from_char_code)]);
    builder.alias("string", "str");
}

const TABLE: &[Entry] = &[
    ("length", 1, 1, length),
    ("is_empty", 1, 1, |cx, args| Ok(Value::Bool(cx.arg_text(args, 0, "text")?.is_empty()))),
    ("upper", 1, 1, |cx, args| changed(cx, args, str::to_uppercase)),
    ("lower", 1, 1, |cx, args| changed(cx, args, str::to_lowercase)),
    ("trim", 1, 1, |cx, args| changed(cx, args, |s| s.trim().to_owned())),
    ("trim_start", 1, 1, |cx, args| changed(cx, args, |s| s.trim_start().to_owned())),
    ("trim_end", 1, 1, |cx, args| changed(cx, args, |s| s.trim_end().to_owned())),
    ("reverse", 1, 1, |cx, args| changed(cx, args, |s| s.chars().rev().collect())),
    ("substring", 2, 3, substring),
    ("slice", 2, 3, slice),
    ("contains", 2, 2, |cx, args| asked(cx, args, |s, part| s.contains(part))),
    ("starts_with", 2, 2, |cx, args| asked(cx, args, |s, part| s.starts_with(part))),
    ("ends_with", 2, 2, |cx, args| asked(cx, args, |s, part| s.ends_with(part))),
    ("index_of", 2, 3, index_of),
    ("last_index_of", 2, 2, |cx, args| found(cx, args, |s, part| s.rfind(part))),
    ("count", 2, 2, count),
    ("replace", 3, 3, |cx, args| replace(cx, args, usize::MAX)),
    ("replace_first", 3, 3, |cx, args| replace(cx, args, 1)),
    ("split", 2, 3, split),
    ("lines", 1, 1, lines),
    ("chars", 1, 1, chars),
    ("repeat", 2, 2, repeat),
    ("pad_start", 2, 3, |cx, args| pad(cx, args, true)),
    ("pad_end", 2, 3, |cx, args| pad(cx, args, false)),
    ("char_at", 2, 2, char_at),
    ("char_code", 1, 2, char_code),
    ("to_int", 1, 1, parse_int),
    ("to_float", 1, 1, parse_float),
    ("to_string", 1, 1, |cx, args| changed(cx, args, str::to_owned)),
    ("bytes", 1, 1, |cx, args| {
        let length = cx.arg_text(args, 0, "text")?.len();
        cx.reserve(length)?;
        let bytes = cx.text(args[0]).as_bytes().to_vec();
        Ok(cx.bytes(bytes))
    }),
];

/// A string argument by its handle.
fn handle(cx: &mut Cx<'_>, args: &[Value], n: usize, name: &str) -> Result<Handle, Value> {
    match cx.arg(args, n) {
        Value::Str(handle) => Ok(handle),
        other => Err(cx.wrong(name, "a string", other)),
    }
}

fn made(cx: &mut Cx<'_>, text: String) -> Done {
    cx.reserve(text.len())?;
    Ok(cx.string(text))
}

fn changed(cx: &mut Cx<'_>, args: &[Value], change: fn(&str) -> String) -> Done {
    let length = cx.arg_text(args, 0, "text")?.len();
    cx.reserve(length)?;
    let text = change(cx.text(args[0]));
    made(cx, text)
}

fn asked(cx: &mut Cx<'_>, args: &[Value], ask: fn(&str, &str) -> bool) -> Done {
    let part = part(cx, args)?;
    Ok(Value::Bool(ask(cx.text(args[0]), &part)))
}

/// The second argument, a string or a char.
fn part(cx: &mut Cx<'_>, args: &[Value]) -> Result<String, Value> {
    handle(cx, args, 0, "text")?;
    match cx.arg(args, 1) {
        Value::Char(c) => Ok(c.to_string()),
        _ => Ok(cx.arg_text(args, 1, "part")?.to_owned()),
    }
}

fn length(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let text = handle(cx, args, 0, "text")?;
    Ok(Value::Int(cx.heap.char_count(text) as i64))
}

/// `substring(text, from, to = the end)`: cut to what exists.
fn substring(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    handle(cx, args, 0, "text")?;
    let from = cx.arg_int(args, 1, "from")?.max(0);
    let to = match cx.arg(args, 2) {
        Value::Null => Value::Null,
        _ => Value::Int(cx.arg_int(args, 2, "to")?.max(0)),
    };
    part_of(cx, args[0], Value::Int(from), to)
}

/// Like `substring`, but a negative bound counts from the end.
fn slice(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    handle(cx, args, 0, "text")?;
    let to = cx.arg(args, 2);
    part_of(cx, args[0], args[1], to)
}

pub(super) fn part_of(cx: &mut Cx<'_>, value: Value, from: Value, to: Value) -> Done {
    match cx.heap.slice(value, from, to) {
        Ok(value) => Ok(value),
        Err(crate::arith::Fault::Thrown(error)) => Err(error),
        Err(crate::arith::Fault::Memory) => Err(cx.out_of_memory()),
    }
}

/// A place in bytes as a place in chars; -1 of none.
fn in_chars(cx: &Cx<'_>, text: Value, at: Option<usize>) -> Value {
    Value::Int(at.map_or(-1, |at| cx.text(text)[..at].chars().count() as i64))
}

fn found(cx: &mut Cx<'_>, args: &[Value], find: fn(&str, &str) -> Option<usize>) -> Done {
    let part = part(cx, args)?;
    let at = find(cx.text(args[0]), &part);
    Ok(in_chars(cx, args[0], at))
}

/// `index_of(text, part, from = 0)`: -1 when it is not there.
fn index_of(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let part = part(cx, args)?;
    let text = handle(cx, args, 0, "text")?;
    let from = match cx.arg(args, 2) {
        Value::Null => 0,
        _ => usize::try_from(cx.arg_int(args, 2, "from")?).unwrap_or(0),
    };
    let start = cx.heap.char_offset(text, from);
    let at = cx.text(args[0])[start..].find(&part).map(|at| at + start);
    Ok(in_chars(cx, args[0], at))
}

fn count(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let part = part(cx, args)?;
    if part.is_empty() {
        return Err(cx.error("value", "cannot count the empty string"));
    }
    Ok(Value::Int(cx.text(args[0]).matches(&part).count() as i64))
}

fn replace(cx: &mut Cx<'_>, args: &[Value], most: usize) -> Done {
    let from = part(cx, args)?;
    let to = match args[2] {
        Value::Char(c) => c.to_string(),
        _ => cx.arg_text(args, 2, "replacement")?.to_owned(),
    };
    let text = cx.text(args[0]);
    let count = text.matches(&from).take(most).count();
    let size = text.len().saturating_add(count.saturating_mul(to.len()));
    cx.reserve(size)?;
    let text = cx.text(args[0]).replacen(&from, &to, most);
    made(cx, text)
}

/// `split(text, separator, most = all)`; the empty separator splits into chars.
fn split(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let separator = part(cx, args)?;
    let most = match cx.arg(args, 2) {
        Value::Null => usize::MAX,
        _ => usize::try_from(cx.arg_int(args, 2, "most")?).unwrap_or(0).max(1),
    };
    let text = cx.text(args[0]).to_owned();
    let parts: Vec<&str> = if separator.is_empty() {
        text.split("").filter(|p| !p.is_empty()).collect()
    } else {
        text.splitn(most, &separator).collect()
    };
    strings_of(cx, &parts)
}

fn strings_of(cx: &mut Cx<'_>, parts: &[&str]) -> Done {
    let slot = crate::heap::SLOT_BYTES + size_of::<Value>();
    let size: usize = parts.iter().map(|p| p.len() + slot).sum();
    cx.reserve(size)?;
    let parts = parts.iter().map(|p| cx.str(p)).collect();
    Ok(cx.array(parts))
}

fn lines(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let text = cx.arg_text(args, 0, "text")?.to_owned();
    let lines: Vec<&str> = text.lines().collect();
    strings_of(cx, &lines)
}

fn chars(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let text = handle(cx, args, 0, "text")?;
    let count = cx.heap.char_count(text);
    cx.reserve(count * size_of::<Value>())?;
    let chars = cx.text_of(text).chars().map(Value::Char).collect();
    Ok(cx.array(chars))
}

/// `join(array, separator = "")`
pub(super) fn join(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    // Some programs give the separator first.
    let (array, separator) = match (args[0], cx.arg(args, 1)) {
        (Value::Str(_), array @ Value::Array(_)) => (array, args[0]),
        (array, separator) => (array, separator),
    };
    cx.arg_array(&[array], 0, "array")?;
    let separator = if separator.is_null() { String::new() } else { cx.display(separator) };
    let mut text = String::new();
    for n in 0..cx.items(array).len() {
        if n > 0 {
            text.push_str(&separator);
        }
        let item = cx.items(array)[n];
        cx.heap.display(item, &mut text);
        cx.reserve(text.len())?;
    }
    made(cx, text)
}

fn repeat(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let size = cx.arg_text(args, 0, "text")?.len();
    let times = usize::try_from(cx.arg_int(args, 1, "times")?).unwrap_or(0);
    cx.reserve(size.saturating_mul(times))?;
    let text = cx.text(args[0]).repeat(times);
    Ok(cx.string(text))
}

/// `pad_start(text, width, with = " ")`
fn pad(cx: &mut Cx<'_>, args: &[Value], start: bool) -> Done {
    let text = handle(cx, args, 0, "text")?;
    let width = usize::try_from(cx.arg_int(args, 1, "width")?).unwrap_or(0);
    let with = match cx.arg(args, 2) {
        Value::Null => " ".to_owned(),
        other => cx.display(other),
    };
    let missing = width.saturating_sub(cx.heap.char_count(text));
    if missing == 0 || with.is_empty() {
        return Ok(args[0]);
    }
    cx.reserve(missing.saturating_mul(4))?;
    let padding: String = with.chars().cycle().take(missing).collect();
    let text = cx.text_of(text);
    let padded = if start { padding + text } else { text.to_owned() + &padding };
    made(cx, padded)
}

fn char_at(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    handle(cx, args, 0, "text")?;
    cx.arg_int(args, 1, "position")?;
    match cx.heap.read_index(args[0], args[1]) {
        Ok(value) => Ok(value),
        Err(crate::arith::Fault::Thrown(error)) => Err(error),
        Err(crate::arith::Fault::Memory) => Err(cx.out_of_memory()),
    }
}

fn char_code(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let text = handle(cx, args, 0, "text")?;
    let at = if args.len() > 1 { usize::try_from(cx.arg_int(args, 1, "position")?).unwrap_or(usize::MAX) } else { 0 };
    let start = cx.heap.char_offset(text, at);
    Ok(cx.text_of(text)[start..].chars().next().map_or(Value::Null, |c| Value::Int(i64::from(u32::from(c)))))
}

fn from_char_code(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let code = cx.arg_int(args, 0, "code")?;
    match u32::try_from(code).ok().and_then(char::from_u32) {
        Some(c) => Ok(cx.string(c.to_string())),
        None => Err(cx.error("value", format!("{code} is not the code of a char"))),
    }
}

/// The integer that a text holds; throws when it holds none.
pub(super) fn parse_int(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    strings(cx, args, &["text"])?;
    let text = cx.text(args[0]).trim().replace('_', "");
    let digits = text.trim_start_matches(['-', '+']);
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => {
            let magnitude = u64::from_str_radix(hex, 16).ok().and_then(|n| i64::try_from(n).ok());
            magnitude.map(|n| if text.starts_with('-') { -n } else { n })
        }
        None => text.parse().ok(),
    };
    match parsed {
        Some(n) => Ok(Value::Int(n)),
        None => Err(not_a(cx, &text, "an integer")),
    }
}

pub(super) fn parse_float(cx: &mut Cx<'_>, args: &[Value]) -> Done {
    let text = cx.arg_text(args, 0, "text")?.trim().to_owned();
    match text.parse::<f64>() {
        Ok(n) => Ok(Value::Float(n)),
        Err(_) => Err(not_a(cx, &text, "a number")),
    }
}

fn not_a(cx: &mut Cx<'_>, text: &str, wanted: &str) -> Value {
    let shown: String = text.chars().take(40).collect();
    cx.error("value", format!("`{shown}` is not {wanted}"))
}

//! `log`: one JSON object per line on standard error, the form that log stores read.
//! `log.info(message, fields)`, `warn` and `error` are written in RADS and end here.

use std::io::Write;

use rads_vm::{Cx, Params, Value};

use super::time::wall_ms;
use crate::library::{Entry, inline};
use crate::web::date;

pub(crate) const ENTRIES: &[Entry] = &[inline("log", "line", Params::exactly(3), line)];

/// `log.line(level, message, fields)`; the fields are a JSON object already.
fn line(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let line = render(wall_ms(), &cx.display(args[0]), &cx.display(args[1]), cx.arg_text(args, 2, "fields")?);
    // One write per line, so that lines of several stars in one file do not mix. A closed standard error is no reason
    // to fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
    Ok(Value::Null)
}

fn render(now_ms: i64, level: &str, message: &str, fields: &str) -> String {
    let fields = fields.trim().strip_prefix('{').and_then(|fields| fields.strip_suffix('}')).unwrap_or_default();
    let comma = if fields.is_empty() { "" } else { "," };
    let time = date::iso(now_ms);
    format!("{{\"time\":\"{time}\",\"level\":{},\"message\":{}{comma}{fields}}}\n", quoted(level), quoted(message))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_on_one_line() {
        let head = "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",";
        assert_eq!(render(0, "info", "started", "{}"), format!("{head}\"message\":\"started\"}}\n"));
        assert_eq!(render(0, "info", "a\"b\n\u{1}", "{\"port\":80}"), {
            format!("{head}\"message\":\"a\\\"b\\n\\u0001\",\"port\":80}}\n")
        });
    }
}

//! The natives that need no effects, one file a module. `rads-std` puts the rest on top.

mod array;
mod global;
mod json;
mod math;
mod object;
mod text;

use crate::cx::Cx;
use crate::native::{NativeBody, NativesBuilder, Params, PureFn};
use crate::value::Value;

/// Registers everything that every RADS program can use, wherever it runs.
pub fn core_natives(builder: &mut NativesBuilder) {
    global::register(builder);
    text::register(builder);
    array::register(builder);
    object::register(builder);
    math::register(builder);
    json::register(builder);
    builder.prelude(include_str!("prelude.rads"));
}

/// One function of a module: name, fewest and most arguments, body.
type Entry = (&'static str, u8, u8, PureFn);

fn functions(builder: &mut NativesBuilder, module: &'static str, entries: &[Entry]) {
    for (name, min, max, body) in entries {
        builder.function(module, name, Params::between(*min, *max), NativeBody::Pure(*body));
    }
}

/// The same functions as methods: the receiver is their first argument.
fn methods(builder: &mut NativesBuilder, kind: &'static str, entries: &[Entry]) {
    for (name, min, max, body) in entries.iter().filter(|entry| entry.1 > 0) {
        builder.method(kind, name, Params::between(min - 1, max - 1), NativeBody::Pure(*body));
    }
}

/// Checks that the first arguments are strings; afterwards `cx.text` reads them side by side.
fn strings(cx: &mut Cx<'_>, args: &[Value], names: &[&str]) -> Result<(), Value> {
    for (n, name) in names.iter().enumerate() {
        cx.arg_text(args, n, name)?;
    }
    Ok(())
}

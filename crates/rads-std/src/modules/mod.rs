//! What scripts call, a file per subject. Each gives its `ENTRIES`; the registry numbers them.
//!
//! Files and SQLite are answered synchronously on the star's one thread: a page-cache read or an indexed query takes
//! microseconds, less than handing it to a thread, and a thread would cost every star its stack. Sockets, timers and
//! whatever waits for others suspend only their task.

pub(crate) mod constellation;
pub(crate) mod db;
pub(crate) mod env;
pub(crate) mod fs;
pub(crate) mod http;
pub(crate) mod io;
pub(crate) mod log;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod tasks;
pub(crate) mod text;
pub(crate) mod time;
pub(crate) mod web;

use rads_vm::{Cx, Value};

/// An option of an options object. The name it was asked under is remembered, so that [`Options::done`] can name a
/// misspelt one.
pub(crate) struct Options {
    object: Value,
    known: Vec<&'static str>,
}

impl Options {
    /// Argument `n`, which may be missing.
    pub(crate) fn new(cx: &mut Cx<'_>, args: &[Value], n: usize) -> Result<Options, Value> {
        let object = if cx.arg(args, n).is_null() { Value::Null } else { cx.arg_object(args, n, "options")? };
        Ok(Options { object, known: Vec::new() })
    }

    /// The value, unless it is missing or null.
    pub(crate) fn get(&mut self, cx: &Cx<'_>, name: &'static str) -> Option<Value> {
        self.known.push(name);
        cx.get(self.object, name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, cx: &mut Cx<'_>, name: &'static str) -> Result<Option<String>, Value> {
        match self.get(cx, name) {
            Some(value) => cx.arg_text(&[value], 0, name).map(|text| Some(text.to_owned())),
            None => Ok(None),
        }
    }

    pub(crate) fn bool(&mut self, cx: &mut Cx<'_>, name: &'static str) -> Result<Option<bool>, Value> {
        self.get(cx, name).map(|value| cx.arg_bool(&[value], 0, name)).transpose()
    }

    /// A count, size or duration: zero or more.
    pub(crate) fn natural(&mut self, cx: &mut Cx<'_>, name: &'static str) -> Result<Option<u64>, Value> {
        let Some(value) = self.get(cx, name) else { return Ok(None) };
        let number = cx.arg_int(&[value], 0, name)?;
        match u64::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(cx.error("value", format!("`{name}` must not be negative"))),
        }
    }

    /// Every other option is a mistake that must not pass unseen.
    pub(crate) fn done(self, cx: &mut Cx<'_>) -> Result<(), Value> {
        let unknown = cx.entries(self.object).into_iter().find(|(name, _)| !self.known.contains(&name.as_str()));
        let Some((name, _)) = unknown else { return Ok(()) };
        let hint = match rads_syntax::nearest(&name, self.known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("there are `{}`", self.known.join("`, `")),
        };
        Err(cx.error("value", format!("unknown option `{name}` ({hint})")))
    }
}

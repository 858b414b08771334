//! The part of `net` that only shapes text: parameters, forms, cookies, redirects, templates.

use rads_vm::{Cx, Params, Value};

use super::Options;
use super::io::failed;
use super::text::html_escape;
use crate::handler::form_object;
use crate::library::{Action, Entry, Host, host, inline};
use crate::template::{Data, Template};
use crate::web::cookie::{self, Attributes, SameSite};

pub(crate) const ENTRIES: &[Entry] = &[
    inline("net", "param_get", Params::between(2, 3), member),
    inline("net", "form_get", Params::between(2, 3), member),
    inline("net", "cookie_get", Params::between(2, 3), member),
    inline("net", "form_parse", Params::exactly(1), form_parse),
    inline("net", "cookie_set", Params::exactly(2).with_options(), cookie_set),
    inline("net", "redirect", Params::between(1, 2), redirect),
    inline("net", "html_escape", Params::exactly(1), html_escape),
    inline("net", "template_render", Params::between(1, 2), template_render),
    host("net", "template_file", Params::between(1, 2), template_file),
];

/// A member of an object, or the third argument (null when there is none).
fn member(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let object = cx.arg_object(args, 0, "object")?;
    let name = cx.arg_text(args, 1, "name")?.to_owned();
    Ok(cx.get(object, &name).unwrap_or(cx.arg(args, 2)))
}

fn form_parse(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    // A body that is not UTF-8 comes as bytes; its text is taken as far as it is text.
    match cx.as_bytes(args[0]) {
        Some(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            Ok(form_object(cx, &text))
        }
        None => Err(cx.wrong("form", "a string or bytes", args[0])),
    }
}

/// The text for a `set-cookie` header.
fn cookie_set(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let name = cx.arg_text(args, 0, "name")?.to_owned();
    let value = cx.display(args[1]);
    let mut options = Options::new(cx, args, 2)?;
    let usual = Attributes::default();
    let attributes = Attributes {
        path: options.text(cx, "path")?.unwrap_or(usual.path),
        domain: options.text(cx, "domain")?,
        max_age_seconds: options.natural(cx, "max_age_seconds")?.map(|seconds| seconds.min(i64::MAX as u64) as i64),
        http_only: options.bool(cx, "http_only")?.unwrap_or(usual.http_only),
        secure: options.bool(cx, "secure")?.unwrap_or(usual.secure),
        same_site: match options.text(cx, "same_site")?.as_deref() {
            None => usual.same_site,
            Some("strict") => SameSite::Strict,
            Some("lax") => SameSite::Lax,
            Some("none") => SameSite::None,
            Some(other) => {
                let message = format!("`same_site` must be `strict`, `lax` or `none`, not `{other}`");
                return Err(cx.error("value", message));
            }
        },
    };
    options.done(cx)?;
    match cookie::render(&name, &value, &attributes) {
        Ok(text) => Ok(cx.string(text)),
        Err(fault) => Err(cx.error("value", fault)),
    }
}

/// 303, so that the browser follows with GET and a reload does not send the form again; or the given status.
fn redirect(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let target = cx.arg_text(args, 0, "location")?.to_owned();
    let status = if cx.arg(args, 1).is_null() { 303 } else { cx.arg_int(args, 1, "status")? };
    if !(300..=399).contains(&status) {
        return Err(cx.error("value", format!("`{status}` is no redirect status (301, 302, 303, 307, 308)")));
    }
    let location = cx.string(target);
    let headers = cx.object_of(&[("location", location)]);
    let body = cx.str("");
    Ok(cx.object_of(&[("status", Value::Int(status)), ("headers", headers), ("body", body)]))
}

fn template_render(cx: &mut Cx<'_>, args: &[Value]) -> Result<Value, Value> {
    let source = cx.arg_text(args, 0, "template")?.to_owned();
    render(cx, &source, "template", args)
}

/// The file is read each time: it lies in the page cache, and an edited template shows at once.
fn template_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let path = cx.arg_text(args, 0, "path")?.to_owned();
    match std::fs::read_to_string(host.machine.world.path(&path)) {
        Ok(source) => render(&mut cx, &source, &path, args).map(Action::Done),
        Err(error) => Err(failed(&mut cx, "read template", &path, &error)),
    }
}

fn render(cx: &mut Cx<'_>, source: &str, name: &str, args: &[Value]) -> Result<Value, Value> {
    let root = if cx.arg(args, 1).is_null() { Value::Null } else { cx.arg_object(args, 1, "vars")? };
    match Template::parse(source).and_then(|template| template.render(&mut Values(cx), root)) {
        Ok(page) => Ok(cx.string(page)),
        Err(fault) => Err(cx.error("template", format!("{name}: {fault}"))),
    }
}

/// The heap as templates see it.
struct Values<'a, 'h>(&'a mut Cx<'h>);

impl Data for Values<'_, '_> {
    type Value = Value;

    fn member(&mut self, of: Value, name: &str) -> Option<Value> {
        match of {
            Value::Array(_) if name == "length" => Some(Value::Int(self.0.items(of).len() as i64)),
            Value::Array(_) => self.0.items(of).get(name.parse::<usize>().ok()?).copied(),
            _ => self.0.get(of, name),
        }
    }

    fn items(&mut self, of: Value) -> Vec<(Option<String>, Value)> {
        match of {
            Value::Array(_) => self.0.items(of).iter().map(|item| (None, *item)).collect(),
            _ => self.0.entries(of).into_iter().map(|(key, value)| (Some(key), value)).collect(),
        }
    }

    fn shows(&mut self, value: Value) -> bool {
        match value {
            Value::Array(_) => !self.0.items(value).is_empty(),
            _ => self.0.truthy(value),
        }
    }

    fn text(&mut self, value: Value) -> String {
        if value.is_null() { String::new() } else { self.0.display(value) }
    }
}

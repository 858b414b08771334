//! `io`: whole files as text or bytes, and lines from standard input. Relative paths start at the program's root.

use std::fs;
use std::io::{self, BufRead, ErrorKind, Write};

use rads_vm::{Cx, Params, Value};

use crate::library::{Action, Entry, Host, host};

pub(crate) const ENTRIES: &[Entry] = &[
    host("io", "read_file", Params::exactly(1), read_file),
    host("io", "read_bytes", Params::exactly(1), read_bytes),
    host("io", "write_file", Params::exactly(2), write_file),
    host("io", "append_file", Params::exactly(2), append_file),
    host("io", "file_exists", Params::exactly(1), file_exists),
    host("io", "delete_file", Params::exactly(1), delete_file),
    host("io", "file_size", Params::exactly(1), file_size),
    host("io", "read_line", Params::exactly(0), read_line),
];

/// The error object for a failed operation, kind `io`; `.data.code` tells programs why.
pub(crate) fn failed(cx: &mut Cx<'_>, what: &str, path: &str, error: &io::Error) -> Value {
    let (code, reason) = match error.kind() {
        ErrorKind::NotFound => ("not_found", "no such file or folder"),
        ErrorKind::PermissionDenied => ("denied", "permission denied"),
        ErrorKind::AlreadyExists => ("exists", "it exists already"),
        ErrorKind::NotADirectory => ("not_a_folder", "not a folder"),
        ErrorKind::IsADirectory => ("is_a_folder", "it is a folder"),
        ErrorKind::DirectoryNotEmpty => ("not_empty", "the folder is not empty"),
        ErrorKind::StorageFull => ("full", "the disk is full"),
        ErrorKind::ReadOnlyFilesystem => ("read_only", "the file system is read-only"),
        _ => ("other", ""),
    };
    let reason = if reason.is_empty() { error.to_string().to_lowercase() } else { reason.to_owned() };
    let code = cx.str(code);
    let data = cx.object_of(&[("code", code)]);
    cx.error_with("io", format!("cannot {what} `{path}`: {reason}"), data)
}

/// Runs `operation` on the file that argument 0 names.
pub(crate) fn on_path<T>(
    host: &mut Host<'_>,
    args: &[Value],
    what: &str,
    operation: impl FnOnce(&std::path::Path) -> io::Result<T>,
) -> Result<T, Value> {
    let mut cx = host.vm.heap();
    let path = cx.arg_text(args, 0, "path")?.to_owned();
    operation(&host.machine.world.path(&path)).map_err(|error| failed(&mut cx, what, &path, &error))
}

fn read_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let content = read_within_memory(host, args)?;
    let mut cx = host.cx();
    match String::from_utf8(content) {
        Ok(text) => Ok(Action::Done(cx.string(text))),
        Err(_) => {
            let path = cx.text(args[0]).to_owned();
            Err(cx.error("io", format!("`{path}` is not UTF-8 text (`io.read_bytes` reads any file)")))
        }
    }
}

fn read_bytes(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let content = read_within_memory(host, args)?;
    Ok(Action::Done(host.cx().bytes(content)))
}

fn read_within_memory(host: &mut Host<'_>, args: &[Value]) -> Result<Vec<u8>, Value> {
    let size = on_path(host, args, "read", |path| fs::metadata(path).map(|about| about.len()))?;
    host.cx().reserve(usize::try_from(size).unwrap_or(usize::MAX))?;
    on_path(host, args, "read", |path| fs::read(path))
}

fn write_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let content = content(&mut host.cx(), args)?;
    on_path(host, args, "write", |path| fs::write(path, content))?;
    Ok(Action::Done(Value::Bool(true)))
}

fn append_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let content = content(&mut host.cx(), args)?;
    on_path(host, args, "append to", |path| {
        fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(&content)
    })?;
    Ok(Action::Done(Value::Bool(true)))
}

fn content(cx: &mut Cx<'_>, args: &[Value]) -> Result<Vec<u8>, Value> {
    match cx.as_bytes(args[1]) {
        Some(bytes) => Ok(bytes.to_owned()),
        None => Err(cx.wrong("content", "a string or bytes", args[1])),
    }
}

fn file_exists(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_path(host, args, "look at", |path| Ok(Action::Done(Value::Bool(path.is_file()))))
}

fn delete_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_path(host, args, "delete", |path| fs::remove_file(path))?;
    Ok(Action::Done(Value::Bool(true)))
}

fn file_size(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let size = on_path(host, args, "look at", |path| fs::metadata(path).map(|about| about.len()))?;
    Ok(Action::Done(Value::Int(size as i64)))
}

/// A line without its newline; null at the end of the input. A thread waits for it, so the other tasks go on.
fn read_line(_: &mut Host<'_>, _: &[Value]) -> Result<Action, Value> {
    let reading = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|read| (read > 0).then_some(line))
    });
    Ok(Action::Later(Box::pin(async move {
        let outcome = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        crate::library::make(move |cx| match outcome {
            Ok(Some(line)) => Ok(cx.str(line.trim_end_matches(['\n', '\r']))),
            Ok(None) => Ok(Value::Null),
            Err(error) => Err(failed(cx, "read", "standard input", &error)),
        })
    })))
}

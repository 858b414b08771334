//! `fs`: folders and what a file system knows of files. Relative paths start at the program's root.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rads_vm::{Params, Value};

use super::Options;
use super::io::{failed, on_path};
use crate::library::{Action, Entry, Host, host};

pub(crate) const ENTRIES: &[Entry] = &[
    host("fs", "list_dir", Params::exactly(1), list_dir),
    host("fs", "readdir", Params::exactly(1), list_dir),
    host("fs", "stat", Params::exactly(1), stat),
    host("fs", "is_dir", Params::exactly(1), is_dir),
    host("fs", "is_file", Params::exactly(1), is_file),
    host("fs", "exists", Params::exactly(1), exists),
    host("fs", "mkdir", Params::exactly(1).with_options(), mkdir),
    host("fs", "rmdir", Params::exactly(1), rmdir),
    host("fs", "rename", Params::exactly(2), rename),
    host("fs", "move", Params::exactly(2), move_file),
    host("fs", "copy", Params::exactly(2), copy),
    host("fs", "remove", Params::exactly(1).with_options(), remove),
    host("fs", "unlink", Params::exactly(1).with_options(), remove),
    host("fs", "getcwd", Params::exactly(0), getcwd),
    host("fs", "chmod", Params::exactly(2), chmod),
];

/// The names in a folder, sorted, so that a program sees the same order everywhere.
fn list_dir(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let names = on_path(host, args, "list", |path| {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    })?;
    let mut cx = host.cx();
    let names = names.into_iter().map(|name| cx.string(name)).collect();
    Ok(Action::Done(cx.array(names)))
}

fn stat(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let about = on_path(host, args, "look at", |path| fs::metadata(path))?;
    let modified_ms = about.mtime() * 1000 + about.mtime_nsec() / 1_000_000;
    Ok(Action::Done(host.cx().object_of(&[
        ("size", Value::Int(about.len() as i64)),
        ("is_dir", Value::Bool(about.is_dir())),
        ("is_file", Value::Bool(about.is_file())),
        ("mode", Value::Int(i64::from(about.mode() & 0o7777))),
        ("modified_ms", Value::Int(modified_ms)),
    ])))
}

fn is_dir(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_path(host, args, "look at", |path| Ok(Action::Done(Value::Bool(path.is_dir()))))
}

fn is_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_path(host, args, "look at", |path| Ok(Action::Done(Value::Bool(path.is_file()))))
}

fn exists(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_path(host, args, "look at", |path| Ok(Action::Done(Value::Bool(path.exists()))))
}

/// `recursive: true` makes the folders above too, and is content when the folder exists.
fn mkdir(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let recursive = recursive(host, args)?;
    on_path(host, args, "make folder", |path| if recursive { fs::create_dir_all(path) } else { fs::create_dir(path) })?;
    Ok(Action::Done(Value::Bool(true)))
}

fn rmdir(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_path(host, args, "remove folder", |path| fs::remove_dir(path))?;
    Ok(Action::Done(Value::Bool(true)))
}

/// A file or an empty folder; `recursive: true` removes what is in it too.
fn remove(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let recursive = recursive(host, args)?;
    on_path(host, args, "remove", |path| {
        // The link itself is removed, not what it points to.
        let is_folder = fs::symlink_metadata(path)?.is_dir();
        match (is_folder, recursive) {
            (true, true) => fs::remove_dir_all(path),
            (true, false) => fs::remove_dir(path),
            (false, _) => fs::remove_file(path),
        }
    })?;
    Ok(Action::Done(Value::Bool(true)))
}

fn recursive(host: &mut Host<'_>, args: &[Value]) -> Result<bool, Value> {
    let mut cx = host.cx();
    let mut options = Options::new(&mut cx, args, 1)?;
    let recursive = options.bool(&mut cx, "recursive")?.unwrap_or(false);
    options.done(&mut cx)?;
    Ok(recursive)
}

fn rename(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_two_paths(host, args, "rename", |from, to| fs::rename(from, to))
}

/// Like rename, and across file systems by copying a file and removing the first.
fn move_file(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_two_paths(host, args, "move", |from, to| match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            fs::copy(from, to).and_then(|_| fs::remove_file(from))
        }
        outcome => outcome,
    })
}

fn copy(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    on_two_paths(host, args, "copy", |from, to| fs::copy(from, to).map(drop))
}

fn on_two_paths(
    host: &mut Host<'_>,
    args: &[Value],
    what: &str,
    operation: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<Action, Value> {
    let mut cx = host.vm.heap();
    let from = cx.arg_text(args, 0, "from")?.to_owned();
    let to = cx.arg_text(args, 1, "to")?.to_owned();
    let world = &host.machine.world;
    operation(&world.path(&from), &world.path(&to))
        .map_err(|error| failed(&mut cx, what, &format!("{from}` to `{to}"), &error))?;
    Ok(Action::Done(Value::Bool(true)))
}

fn getcwd(host: &mut Host<'_>, _: &[Value]) -> Result<Action, Value> {
    let root = host.machine.world.root.to_string_lossy().into_owned();
    Ok(Action::Done(host.cx().string(root)))
}

fn chmod(host: &mut Host<'_>, args: &[Value]) -> Result<Action, Value> {
    let mode = host.cx().arg_int(args, 1, "mode")?;
    let Some(mode) = u32::try_from(mode).ok().filter(|mode| *mode <= 0o7777) else {
        return Err(host.cx().error("value", "`mode` must lie between 0 and 0o7777 (0xfff)"));
    };
    on_path(host, args, "change the mode of", |path| fs::set_permissions(path, Permissions::from_mode(mode)))?;
    Ok(Action::Done(Value::Bool(true)))
}

//! What a command is about: the agent of a data folder on this machine, or a constellation elsewhere.

use std::env;
use std::path::{Path, PathBuf};

use model::{Code, Name, Problem};

use crate::cli::Global;
use crate::context::{Context, Contexts, LOCAL};

/// See the head of the file.
pub(crate) enum Place {
    Folder(PathBuf),
    /// By the name it has here.
    Context(Name, Box<Context>),
}

impl Place {
    /// What was typed before what is in the environment, that before the context in use, and that before the user's own folder.
    ///
    /// # Errors
    /// When both a folder and a context were typed; when there is no such context.
    pub(crate) fn choose(global: &Global) -> Result<Self, Problem> {
        let from_env = env::var_os("RADS_DATA").map(PathBuf::from);
        let folder = || data_dir(global.data_dir.clone()).map(Self::Folder);
        let is_typed = global.data_dir.is_some() && global.data_dir != from_env;
        let named = |name: &str| match name {
            LOCAL => folder(),
            name => {
                let name: Name = name.parse().map_err(|error: model::name::InvalidName| {
                    Problem::new(Code::InvalidValue, format!("no context is called so: {error}"))
                })?;
                let context = Contexts::read()?.named(&name)?.clone();
                Ok(Self::Context(name, Box::new(context)))
            }
        };
        if let Some(name) = &global.context {
            if is_typed && name != LOCAL {
                let message = format!("`--data-dir` is about this machine, and `--context {name}` about another");
                return Err(Problem::new(Code::Usage, message).help("leave one of them out"));
            }
            return named(name);
        }
        if is_typed {
            return folder();
        }
        if let Some(name) = env::var_os("RADS_CONTEXT").filter(|name| !name.is_empty()) {
            return named(&name.to_string_lossy());
        }
        if from_env.is_some_and(|folder| !folder.as_os_str().is_empty()) {
            return folder();
        }
        match Contexts::read()?.current {
            Some(name) => named(name.as_str()),
            None => folder(),
        }
    }

    /// The folder, for what can only be done on the machine itself.
    ///
    /// # Errors
    /// When the command is about another.
    pub(crate) fn folder(&self) -> Result<&Path, Problem> {
        match self {
            Self::Folder(folder) => Ok(folder),
            Self::Context(name, _) => {
                let message = format!("this is done on a machine itself, and commands are about context `{name}`");
                Err(Problem::new(Code::Usage, message)
                    .help("`--context local` is about this machine; `rads c context use local` for all that follows"))
            }
        }
    }
}

/// The folder a command works on: what was asked for (`--data-dir`, `RADS_DATA`), else the user's own.
pub(crate) fn data_dir(asked: Option<PathBuf>) -> Result<PathBuf, Problem> {
    // An empty `RADS_DATA` is one that is not set.
    let folder = match asked.filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => folder,
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/rads"),
        None => own_folder(env::var_os("XDG_DATA_HOME").map(PathBuf::from), env::var_os("HOME").map(PathBuf::from))
            .ok_or_else(|| {
                Problem::new(Code::Usage, "no data folder: neither `XDG_DATA_HOME` nor `HOME` is set")
                    .help("name one with `--data-dir FOLDER` or `RADS_DATA`")
            })?,
    };
    if folder.to_str().is_none() {
        let message = format!("the path of the data folder `{}` is not UTF-8 text", folder.display());
        return Err(Problem::new(Code::Usage, message).help("name another with `--data-dir FOLDER` or `RADS_DATA`"));
    }
    // The agent and its nursery outlive this process's working folder.
    std::path::absolute(&folder).map_err(|error| {
        Problem::new(Code::Usage, format!("`{}` is not a data folder: {error}", folder.display()))
            .help("name another with `--data-dir FOLDER` or `RADS_DATA`")
    })
}

/// The XDG base directory specification: a relative `XDG_DATA_HOME` is to be ignored.
fn own_folder(xdg_data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    xdg_data_home
        .filter(|folder| folder.is_absolute())
        .or_else(|| home.filter(|home| home.is_absolute()).map(|home| home.join(".local/share")))
        .map(|folder| folder.join("rads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_folder_follows_xdg() {
        let check = |xdg: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            assert_eq!(own_folder(xdg.map(PathBuf::from), home.map(PathBuf::from)), expected.map(PathBuf::from));
        };
        check(Some("/x"), Some("/home/a"), Some("/x/rads"));
        check(None, Some("/home/a"), Some("/home/a/.local/share/rads"));
        check(Some("relative"), Some("/home/a"), Some("/home/a/.local/share/rads"));
        check(Some(""), Some(""), None);
        check(None, None, None);
    }
}

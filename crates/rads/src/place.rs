//! Where an agent keeps everything: its data folder.

use std::env;
use std::path::PathBuf;

use model::{Code, Problem};

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

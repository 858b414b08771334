//! How a failing disk reads to a person: one place that turns `io::Error` into a `Problem`.

use std::io::{self, ErrorKind};
use std::path::Path;

use model::{Code, Problem};

/// Says what could not be done to `path`. `verb` completes "cannot …": `create`, `write`, `read`.
pub(crate) fn problem(verb: &str, path: &Path, error: &io::Error) -> Problem {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => disk_full(&path.to_string()),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Problem::new(Code::DataUnwritable, format!("cannot {verb} `{path}`: {error}"))
                .help("choose a folder you may write to with `--data-dir`, or correct the owner of this one")
        }
        _ => Problem::new(Code::Internal, format!("cannot {verb} `{path}`: {error}")),
    }
}

pub(crate) fn disk_full(path: &str) -> Problem {
    Problem::new(Code::DiskFull, format!("the disk that holds `{path}` is full; nothing was written"))
        .help("free some space and try again; what runs keeps running")
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

pub(crate) fn corrupt(path: &Path, what: &str) -> Problem {
    Problem::new(Code::DataCorrupt, format!("`{}` is damaged: {what}", path.display()))
        .help("nothing was changed; restore a backup, or move the folder away to begin anew")
}

//! Why a nursery or a detached program could not do its work: what was being done, and what the system said.

use std::io;
use std::path::PathBuf;

/// A failure of the nursery as a whole. What concerns one star is told to the agent instead.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("another nursery (pid {pid}) holds `{}`", data_dir.display())]
    AlreadyRunning { data_dir: PathBuf, pid: u32 },
    #[error("{doing}: {source}")]
    System { doing: String, source: io::Error },
}

/// Puts what was being done before what the system answered.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|error| Fault::System { doing: what(), source: error.into() })
    }
}

/// The same for what concerns one star: the text the agent is told.
pub(crate) trait Because<T> {
    fn because(self, what: impl FnOnce() -> String) -> Result<T, String>;
}

impl<T, E: Into<io::Error>> Because<T> for Result<T, E> {
    fn because(self, what: impl FnOnce() -> String) -> Result<T, String> {
        self.map_err(|error| format!("{}: {}", what(), plain(&error.into())))
    }
}

/// What the system said, in lower case and without the number that Rust appends.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

//! The files that services are made of, in a folder of this machine.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use deploy::{Entry, EntryKind, Files};

/// A folder on this machine whose files services are made of.
pub struct AppFolder(pub PathBuf);

impl Files for AppFolder {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        fs::read(self.0.join(path)).map_err(|error| reason(&error))
    }

    fn kind(&self, path: &str) -> Result<EntryKind, String> {
        fs::symlink_metadata(self.0.join(path)).map(|metadata| kind(&metadata)).map_err(|error| reason(&error))
    }

    fn link(&self, path: &str) -> Result<String, String> {
        let target = fs::read_link(self.0.join(path)).map_err(|error| reason(&error))?;
        let text = target.into_os_string().into_string();
        text.map_err(|target| format!("its target `{}` is not UTF-8 text", target.to_string_lossy()))
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, String> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.map_err(|error| reason(&error))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|name| format!("the name of `{}` is not UTF-8 text", name.to_string_lossy()))?;
            let metadata = entry.metadata().map_err(|error| reason(&error))?;
            Ok(Entry { name, kind: kind(&metadata) })
        };
        fs::read_dir(self.0.join(folder)).map_err(|error| reason(&error))?.map(entry).collect()
    }
}

fn kind(metadata: &fs::Metadata) -> EntryKind {
    match metadata.file_type() {
        kind if kind.is_file() => EntryKind::File { executable: metadata.permissions().mode() & 0o111 != 0 },
        kind if kind.is_dir() => EntryKind::Folder,
        kind if kind.is_symlink() => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

/// Why a file cannot be had, for people.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

//! Which files a service needs, and what they are called: a manifest of contents by BLAKE3, and the manifest's own hash.

use std::collections::BTreeMap;

use model::bundle::{BUNDLE_FILES_MAX, is_bundle_path};
use model::{BundleId, BundleManifest, Bytes, Code, ContentHash, FileEntry, Problem};

/// Where the files of an app come from. Paths are relative to the app's folder, with `/`, without `.` or `..`; errors are
/// for people.
pub trait Files {
    fn read(&self, path: &str) -> Result<Vec<u8>, String>;
    /// What is there, symbolic links not followed.
    fn kind(&self, path: &str) -> Result<EntryKind, String>;
    /// What a folder holds, in any order.
    fn list(&self, folder: &str) -> Result<Vec<Entry>, String>;
    /// Where a symbolic link leads, as it is written there.
    fn link(&self, path: &str) -> Result<String, String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File {
        executable: bool,
    },
    Folder,
    /// A symbolic link: never followed, because it may lead out of the app's folder.
    Link,
    /// A socket, a device: nothing that has a content.
    Other,
}

/// The files of one version of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub id: BundleId,
    pub manifest: BundleManifest,
    pub contents: BTreeMap<ContentHash, Vec<u8>>,
}

/// What the archive of a root file system's folder is called in a bundle.
const ROOT_ARCHIVE: &str = ".rootfs.tar";

/// Most bytes of one bundle: it is held in memory while it is sent.
const BUNDLE_BYTES_MAX: u64 = 512 << 20;

/// Gathers files until they are packed.
pub(crate) struct Packer<'a> {
    files: &'a dyn Files,
    manifest: BundleManifest,
    contents: BTreeMap<ContentHash, Vec<u8>>,
    bytes: u64,
}

impl<'a> Packer<'a> {
    pub(crate) fn new(files: &'a dyn Files) -> Self {
        Self { files, manifest: BundleManifest::default(), contents: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a file whose content was read already.
    pub(crate) fn add_content(&mut self, path: &str, content: Vec<u8>, executable: bool) -> Result<(), Problem> {
        if !is_bundle_path(path) {
            let message = format!("`{}` is no path inside the app's folder", path.escape_debug());
            return Err(Problem::new(Code::InvalidValue, message));
        }
        let size = content.len() as u64;
        let hash = ContentHash(*blake3::hash(&content).as_bytes());
        if self.manifest.files.insert(path.to_owned(), FileEntry { content: hash, size, executable }).is_none() {
            self.bytes += size;
        }
        if self.manifest.files.len() > BUNDLE_FILES_MAX || self.bytes > BUNDLE_BYTES_MAX {
            let message = format!(
                "the files of the service are more than {BUNDLE_FILES_MAX} or larger than {} (at `{path}`)",
                Bytes(BUNDLE_BYTES_MAX)
            );
            return Err(Problem::new(Code::InvalidValue, message).help("keep large data in a volume"));
        }
        self.contents.insert(hash, content);
        Ok(())
    }

    /// Adds a file, or a folder with all that is in it.
    pub(crate) fn add(&mut self, path: &str) -> Result<(), Problem> {
        let path = path.strip_prefix("./").unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if !is_bundle_path(path) {
            let problem = Problem::new(
                Code::InvalidValue,
                format!("`{}` is no path inside the app's folder", path.escape_debug()),
            );
            return Err(problem.help("assets are relative to the folder of the app's file, without `..`"));
        }
        let kind = self.files.kind(path).map_err(|reason| unreadable(path, &reason))?;
        // Folders still to be gone through; each comes from the one before, so paths stay inside.
        let mut waiting = vec![(path.to_owned(), kind)];
        while let Some((path, kind)) = waiting.pop() {
            match kind {
                EntryKind::File { executable } => {
                    let content = self.files.read(&path).map_err(|reason| unreadable(&path, &reason))?;
                    self.add_content(&path, content, executable)?;
                }
                EntryKind::Folder => {
                    let entries = self.files.list(&path).map_err(|reason| unreadable(&path, &reason))?;
                    waiting.extend(entries.into_iter().map(|entry| (format!("{path}/{}", entry.name), entry.kind)));
                }
                EntryKind::Link => {
                    let problem = Problem::new(Code::FileUnreadable, format!("`{path}` is a symbolic link"));
                    return Err(problem.help("put the file itself there: links are not followed into a bundle"));
                }
                EntryKind::Other => {
                    return Err(Problem::new(Code::FileUnreadable, format!("`{path}` is neither a file nor a folder")));
                }
            }
        }
        Ok(())
    }

    /// Adds a root file system, an archive or a folder that becomes one. Gives the archive's path in the bundle.
    pub(crate) fn add_root(&mut self, path: &str) -> Result<String, Problem> {
        match self.files.kind(path).map_err(|reason| unreadable(path, &reason))? {
            EntryKind::Folder => {
                let archive = archive(self.files, path)?;
                self.add_content(ROOT_ARCHIVE, archive, false)?;
                Ok(ROOT_ARCHIVE.to_owned())
            }
            _ => {
                self.add(path)?;
                Ok(path.to_owned())
            }
        }
    }

    pub(crate) fn pack(self) -> Bundle {
        let id = BundleId(ContentHash(*blake3::hash(&self.manifest.canonical_bytes()).as_bytes()));
        Bundle { id, manifest: self.manifest, contents: self.contents }
    }
}

/// A tar archive of a folder: the same files give the same bytes. Owners and times are left out, so are devices and
/// sockets.
fn archive(files: &dyn Files, folder: &str) -> Result<Vec<u8>, Problem> {
    let mut builder = tar::Builder::new(Vec::new());
    let failed = |path: &str, reason: &str| unreadable(path, reason);
    // What is to be looked at next comes last; within a folder in the order of the names.
    let mut waiting = vec![(folder.to_owned(), EntryKind::Folder)];
    while let Some((path, kind)) = waiting.pop() {
        let name = path.strip_prefix(folder).unwrap_or(&path).trim_start_matches('/');
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mtime(0);
        let written = match kind {
            EntryKind::File { executable } => {
                let content = files.read(&path).map_err(|reason| failed(&path, &reason))?;
                header.set_mode(if executable { 0o755 } else { 0o644 });
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_slice())
            }
            EntryKind::Folder => {
                let mut entries = files.list(&path).map_err(|reason| failed(&path, &reason))?;
                entries.sort_by(|a, b| b.name.cmp(&a.name));
                waiting.extend(entries.into_iter().map(|entry| (format!("{path}/{}", entry.name), entry.kind)));
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                if name.is_empty() { Ok(()) } else { builder.append_data(&mut header, name, std::io::empty()) }
            }
            EntryKind::Link => {
                let target = files.link(&path).map_err(|reason| failed(&path, &reason))?;
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                builder.append_link(&mut header, name, target)
            }
            EntryKind::Other => Ok(()),
        };
        written.map_err(|error| failed(&path, &error.to_string()))?;
        if builder.get_ref().len() as u64 > BUNDLE_BYTES_MAX {
            let message = format!("the root file system in `{folder}` is larger than {}", Bytes(BUNDLE_BYTES_MAX));
            return Err(Problem::new(Code::InvalidValue, message).help("leave out what the program does not need"));
        }
    }
    builder.into_inner().map_err(|error| failed(folder, &error.to_string()))
}

fn unreadable(path: &str, reason: &str) -> Problem {
    Problem::new(Code::FileUnreadable, format!("cannot read `{path}`: {reason}"))
}

//! The memory of a star beside the files of a snapshot: a folder of images that another program writes and reads.
//!
//! `.memory/<snapshot>/` holds them, and a list of their sizes and hashes that is written last. Without its snapshot it is
//! nothing: what a process that ended left so is removed by the next.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::{Name, Problem};
use serde::{Deserialize, Serialize};

use super::{HASH, Snapshots, no_snapshot, taken_already};
use crate::bundles::sync_dir;
use crate::fault;

/// No snapshot's name has a dot.
const FOLDER: &str = ".memory";
/// In each folder; no image is called so.
const LIST: &str = "list";
/// The form of the list; a later one is read beside this.
const VERSION: u32 = 1;

/// What is kept of a star's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryInfo {
    /// The star's name: `hello-1`.
    pub star: String,
    pub bytes: u64,
}

/// A star's memory, its images as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMemory {
    pub images: PathBuf,
    /// What was given with them.
    pub details: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct List {
    version: u32,
    star: String,
    details: Vec<u8>,
    images: Vec<Image>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Image {
    name: String,
    bytes: u64,
    hash: [u8; HASH],
}

impl Snapshots {
    /// A new folder for the images of a snapshot that is being taken.
    pub fn begin_memory(&self, name: &Name) -> Result<PathBuf, Problem> {
        let folder = self.memory(name);
        let make = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join(FOLDER))?;
            DirBuilder::new().mode(0o700).create(&folder)
        };
        make().map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken_already(name),
            _ => fault::problem("create", &folder, &error),
        })?;
        Ok(folder)
    }

    /// Lists what is in the folder. Durable when it returns; it counts once the snapshot of this name is taken.
    pub fn keep_memory(&self, name: &Name, star: String, details: Vec<u8>) -> Result<MemoryInfo, Problem> {
        let folder = self.memory(name);
        let keep = || -> io::Result<List> {
            let images = images(&folder)?;
            let list = List { version: VERSION, star, details, images };
            let mut bytes = rmp_serde::to_vec_named(&list).map_err(io::Error::other)?;
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            let path = folder.join(LIST);
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&bytes)?;
            rustix::fs::syncfs(File::open(&folder)?)?;
            sync_dir(&self.folder.join(FOLDER))?;
            Ok(list)
        };
        Ok(info(&keep().map_err(|error| fault::problem("write", &folder, &error))?))
    }

    /// Removes the images of a snapshot that was not taken.
    pub fn drop_memory(&self, name: &Name) -> Result<(), Problem> {
        let folder = self.memory(name);
        remove(&folder).map_err(|error| fault::problem("remove", &folder, &error))
    }

    pub(super) fn memory_info(&self, name: &Name) -> Result<Option<MemoryInfo>, Problem> {
        Ok(self.load_list(name)?.as_ref().map(info))
    }

    /// The memory of a snapshot, if it has one, every byte as it was.
    ///
    /// # Errors
    /// `NotFound`; `DataCorrupt` for an image that is not what it was.
    pub fn open_memory(&self, name: &Name) -> Result<Option<StoredMemory>, Problem> {
        if !self.folder.join(name.as_str()).exists() {
            return Err(no_snapshot(name));
        }
        let folder = self.memory(name);
        let Some(list) = self.load_list(name)? else { return Ok(None) };
        for Image { name, bytes, hash } in &list.images {
            let path = folder.join(name);
            let found = hash_of(&path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => fault::corrupt(&path, "it is missing"),
                _ => fault::problem("read", &path, &error),
            })?;
            if found != (*bytes, *hash) {
                return Err(fault::corrupt(&path, "its content does not have its hash"));
            }
        }
        Ok(Some(StoredMemory { images: folder, details: list.details }))
    }

    fn load_list(&self, name: &Name) -> Result<Option<List>, Problem> {
        let path = self.memory(name).join(LIST);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|error| fault::problem("read", &path, &error))?,
        };
        let (content, hash) = bytes.split_at(bytes.len().saturating_sub(HASH));
        if blake3::hash(content).as_bytes() != hash {
            return Err(fault::corrupt(&path, "its content does not have its hash"));
        }
        let list: List = rmp_serde::from_slice(content).map_err(|error| fault::corrupt(&path, &error.to_string()))?;
        match list.version {
            VERSION => Ok(Some(list)),
            other => Err(fault::corrupt(&path, &format!("it is of version {other}"))),
        }
    }

    /// Removes what belongs to no snapshot.
    pub(super) fn recover_memories(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join(FOLDER)).into_iter().flatten() {
            let entry = entry?;
            if !self.folder.join(entry.file_name()).is_file() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn memory(&self, name: &Name) -> PathBuf {
        self.folder.join(FOLDER).join(name.as_str())
    }
}

fn info(list: &List) -> MemoryInfo {
    MemoryInfo { star: list.star.clone(), bytes: list.images.iter().map(|image| image.bytes).sum() }
}

fn images(folder: &Path) -> io::Result<Vec<Image>> {
    let mut images = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let invalid = |_| io::Error::new(ErrorKind::InvalidData, "an image's name is not text");
        let name = entry.file_name().into_string().map_err(invalid)?;
        let (bytes, hash) = hash_of(&entry.path())?;
        images.push(Image { name, bytes, hash });
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

fn hash_of(path: &Path) -> io::Result<(u64, [u8; HASH])> {
    let mut hasher = blake3::Hasher::new();
    let (mut file, mut bytes, mut length) = (File::open(path)?, vec![0; 256 << 10], 0);
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok((length, *hasher.finalize().as_bytes())),
            Ok(read) => {
                hasher.update(&bytes[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

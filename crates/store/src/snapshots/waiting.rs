//! What stars had of their own, unpacked for those that come in their places.
//!
//! `snapshots/.waiting/<namespace>.<service>/<ordinal>/` has a folder for each place, `0`, `1`, …, `0.gone` with the names
//! that are to go there, each ended by a NUL, `areas` which says where each belongs, and, once a star has been ordered with
//! it, `given`, which names the star. It is removed when that star has begun.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use model::{Code, Name, Problem, ServiceKey, StarId};
use rustix::fs::Mode;

use super::pieces::Pieces;
use super::way::FOLDER;
use super::{Content, Item, Snapshots, Star, UNPACKED, unpack};
use crate::fault;

/// The folder, which no snapshot's name has, and what the journal calls it.
pub(super) const WAITING: &str = ".waiting";

/// Files that a star is to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub folder: PathBuf,
    /// Where in the star the first, second, … folder in it belongs.
    pub areas: Vec<String>,
}

impl Snapshots {
    /// Whether something waits for stars of a service.
    pub fn awaits(&self, service: &ServiceKey) -> bool {
        self.awaited().contains(service)
    }

    /// What waits for a star, which is noted to be given to it.
    ///
    /// # Errors
    /// When it is there but cannot be read: the star is not to start without.
    pub fn give(&self, service: &ServiceKey, ordinal: u32, star: StarId) -> Result<Option<Waiting>, Problem> {
        if !self.awaited().contains(service) {
            return Ok(None);
        }
        let folder = self.place(service).join(ordinal.to_string());
        let read = || -> io::Result<Option<Vec<String>>> {
            let areas = match fs::read(folder.join("areas")) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            fs::write(folder.join("given"), star.to_string())?;
            rmp_serde::from_slice(&areas).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
        };
        let areas = read().map_err(|error| fault::problem("read", &folder, &error))?;
        Ok(areas.map(|areas| Waiting { folder, areas }))
    }

    /// Removes what a star has begun with.
    pub fn taken(&self, service: &ServiceKey, ordinal: u32, star: StarId) {
        if !self.awaited().contains(service) {
            return;
        }
        let _pieces = self.pieces();
        let place = self.place(service);
        let folder = place.join(ordinal.to_string());
        if fs::read_to_string(folder.join("given")).is_ok_and(|given| given == star.to_string()) {
            let old = self.folder.join(WAITING).join(format!("{UNPACKED}{}.{star}", text(service)));
            // Gone at once, whatever becomes of the rest: what is left of it is swept away by the next start.
            if fs::rename(&folder, &old).is_ok() {
                let _ = unpack::remove(&old);
            }
        }
        if fs::remove_dir(&place).is_ok() {
            self.awaited().remove(service);
        }
    }

    /// Lets nothing wait for services that are no more; whether there is something to be removed now, by `sweep_waiting`.
    pub fn wait_only_for(&self, is_there: impl Fn(&ServiceKey) -> bool) -> bool {
        // Nearly always nothing waits.
        let gone: Vec<ServiceKey> = self.awaited().iter().filter(|service| !is_there(service)).cloned().collect();
        for service in &gone {
            self.awaited().remove(service);
            let mut number = 0;
            let old = |number: u32| self.folder.join(WAITING).join(format!("{UNPACKED}{}.{number}", text(service)));
            while let Err(ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) =
                fs::rename(self.place(service), old(number)).map_err(|error| error.kind())
            {
                number += 1;
            }
        }
        !gone.is_empty()
    }

    /// Removes what nobody waits for.
    pub fn sweep_waiting(&self) {
        let _pieces = self.pieces();
        // What cannot be removed now is by the next start.
        let _ = self.sweep(&self.folder.join(WAITING));
    }

    /// Finds what waits, and removes what does so no more.
    pub(super) fn find_waiting(&self) -> io::Result<()> {
        let folder = self.folder.join(WAITING);
        if !folder.exists() {
            return Ok(());
        }
        self.sweep(&folder)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((namespace, service)) = name.split_once('.') else { continue };
            if let (Ok(namespace), Ok(name)) = (namespace.parse::<Name>(), service.parse::<Name>()) {
                // An empty one is left by a restore that had nothing for stars.
                if fs::remove_dir(entry.path()).is_err() {
                    found.push(ServiceKey { namespace, name });
                }
            }
        }
        *self.awaited() = found.into_iter().collect();
        Ok(())
    }

    /// Unpacks what stars had of their own beside what waits already. `None`: neither is there.
    pub(super) fn unpack_stars(
        &self,
        content: &Content,
        service: &ServiceKey,
        places: &BTreeMap<u32, u32>,
        pieces: &Pieces,
    ) -> Result<Option<Item>, Problem> {
        let folder = self.folder.join(WAITING);
        let name = text(service);
        let cannot = |error: io::Error| fault::problem("write", &folder, &error);
        if content.stars.is_empty() && !folder.join(&name).exists() {
            return Ok(None);
        }
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(&folder).and_then(|()| self.sweep(&folder)).map_err(cannot)?;
        let new = folder.join(format!("{UNPACKED}{name}"));
        private(&new).and_then(|()| private(&folder.join(&name))).map_err(cannot)?;
        for Star { ordinal, areas, .. } in &content.stars {
            let ordinal = places.get(ordinal).ok_or_else(|| {
                Problem::new(Code::Conflict, format!("there is no place for the files of star {ordinal}"))
            })?;
            let star = new.join(ordinal.to_string());
            private(&star).map_err(cannot)?;
            for (number, (inside, tree)) in areas.iter().enumerate() {
                let to = star.join(number.to_string());
                let made = fs::create_dir(&to).and_then(|()| Ok(rustix::fs::open(&to, FOLDER, Mode::empty())?));
                self.fill(tree, &made.map_err(cannot)?, pieces, &format!("`{inside}` of star {ordinal}"), &to)?;
                if !tree.gone.is_empty() {
                    let paths = tree.gone.iter().flat_map(|gone| {
                        let mut path = tree.raw_path(gone.parent, &gone.name);
                        path.push(0);
                        path
                    });
                    write(&star.join(format!("{number}.gone")), &paths.collect::<Vec<u8>>()).map_err(cannot)?;
                }
            }
            let insides: Vec<&String> = areas.iter().map(|(inside, _)| inside).collect();
            let insides = rmp_serde::to_vec(&insides).map_err(io::Error::other);
            insides.and_then(|insides| write(&star.join("areas"), &insides)).map_err(cannot)?;
        }
        let synced = File::open(&new).and_then(|made| Ok(rustix::fs::syncfs(made)?));
        synced.map_err(cannot)?;
        Ok(Some(Item { folder, namespace: WAITING.to_owned(), name }))
    }

    fn place(&self, service: &ServiceKey) -> PathBuf {
        self.folder.join(WAITING).join(text(service))
    }

    fn awaited(&self) -> MutexGuard<'_, std::collections::BTreeSet<ServiceKey>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Neither part has a dot.
pub(super) fn text(service: &ServiceKey) -> String {
    format!("{}.{}", service.namespace, service.name)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)
}

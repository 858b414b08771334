//! The way from a star to its agent: sockets in a folder that is the star's alone, which it finds at `/run/rads`. By one it talks, by
//! the other it has the API, as far as its service's `access` goes.
//!
//! The folder is what is mounted, so an agent that was restarted puts other sockets into it and the star finds those. The folders lie
//! in one that is closed to everybody else on the machine. Only stars whose files mention the module, or that have an `access`, are
//! given one.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::talk::{API_SOCKET, SOCKET};
use model::{BundleId, Program, StarId, StarTemplate};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::desk::{self, Desk};
use super::pace::Pace;
use super::{Talks, serve};
use crate::clock::Clock;

/// Connections of one star at once: a program has one, its probes and hooks may have others.
const CONNECTIONS_MAX: usize = 4;
/// What a script says that wants to talk.
const WORD: &[u8] = b"constellation";

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct Ways {
    talks: Talks,
    desk: Desk,
    clock: Clock,
    folder: PathBuf,
    leaving: watch::Receiver<bool>,
    open: Arc<Mutex<HashMap<StarId, [AbortHandle; 2]>>>,
    /// Whether a bundle's scripts want to talk.
    wants: Arc<Mutex<HashMap<BundleId, bool>>>,
}

impl Ways {
    pub(crate) fn new(talks: Talks, desk: Desk, data_dir: &Path) -> Self {
        let (folder, clock, leaving) = (data_dir.join("ways"), desk.clock, desk.leaving.clone());
        Self { talks, desk, clock, folder, leaving, open: Arc::default(), wants: Arc::default() }
    }

    /// Whether stars made from this are given a way: those that may ask for something, and scripts of which some file mentions the module.
    pub(crate) fn wanted(&self, template: &StarTemplate, bundle: Option<&Path>) -> bool {
        if template.access.is_some() {
            return true;
        }
        if !matches!(template.program, Program::Script(_)) {
            return false;
        }
        let Some(bundle) = bundle else { return false };
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        *wants.entry(template.bundle).or_insert_with(|| mentions(bundle))
    }

    /// Opens the way of a star; gives the folder it is to be given. It may be open already.
    ///
    /// # Errors
    /// When folder or socket cannot be made.
    pub(crate) fn open(&self, star: StarId) -> io::Result<PathBuf> {
        let folder = self.folder.join(star.to_string());
        let mut open = self.all();
        if open.contains_key(&star) {
            return Ok(folder);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        DirBuilder::new().recursive(true).mode(0o755).create(&folder)?;
        // A mask may have taken something off.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let (talking, asking) = (bind(&folder, SOCKET)?, bind(&folder, API_SOCKET)?);
        // However it asks.
        let pace = Arc::new(Mutex::new(Pace::new(self.clock.now())));
        let talking = tokio::spawn(accept(self.clone(), star, talking, Arc::clone(&pace)));
        let asking = tokio::spawn(admit(self.desk.clone(), star, asking, pace));
        open.insert(star, [talking.abort_handle(), asking.abort_handle()]);
        Ok(folder)
    }

    /// A star has ended.
    pub(crate) fn close(&self, star: StarId) {
        if let Some(accepting) = self.all().remove(&star) {
            accepting.iter().for_each(AbortHandle::abort);
            // Left behind when it cannot be removed: the next agent sweeps.
            let _ = fs::remove_dir_all(self.folder.join(star.to_string()));
        }
    }

    /// Removes what stars left that ended while no agent was there.
    pub(crate) fn sweep(&self, running: &BTreeSet<StarId>) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let star = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if !star.is_some_and(|star| running.contains(&star)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<StarId, [AbortHandle; 2]>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens by a name in a star's folder.
fn bind(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let socket = folder.join(name);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // By the folder's descriptor: paths of sockets are short (unix(7)), those of data folders may not be.
    let handle = File::open(folder)?;
    let short = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
    let listener = UnixListener::bind(short)?;
    // Whoever is in the star may use it; nobody else gets as far as its folder.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// The next connection.
async fn next(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, most likely; it does not help to ask at once.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

async fn admit(desk: Desk, star: StarId, listener: UnixListener, pace: Arc<Mutex<Pace>>) {
    let room = Arc::new(Semaphore::new(desk::CONNECTIONS_MAX));
    loop {
        // More wait in the kernel's queue.
        let Ok(turn) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = next(&listener).await;
        let (desk, pace) = (desk.clone(), Arc::clone(&pace));
        tokio::spawn(async move {
            desk.serve(star, pace, stream).await;
            drop(turn);
        });
    }
}

async fn accept(ways: Ways, star: StarId, listener: UnixListener, pace: Arc<Mutex<Pace>>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = next(&listener).await;
        // One too many is closed at once.
        let Ok(turn) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (ways, pace) = (ways.clone(), Arc::clone(&pace));
        tokio::spawn(async move {
            if let Some(who) = ways.talks.who(star).await {
                serve(ways.talks.clone(), who, pace, ways.clock, None, stream, ways.leaving).await;
            }
            drop(turn);
        });
    }
}

/// Whether any script of a bundle has the module's name in it.
fn mentions(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => mentions(&path),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|of| of == "rads") => {
                fs::read(&path).is_ok_and(|text| text.windows(WORD.len()).any(|part| part == WORD))
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_never_names_the_module_wants_no_way() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("lib");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("main.rads"), "echo(1);").unwrap();
        fs::write(folder.path().join("notes.txt"), "constellation").unwrap();
        assert!(!mentions(folder.path()));
        fs::write(inner.join("far.rads"), "blast f() { return constellation.nodes(); }").unwrap();
        assert!(mentions(folder.path()));
    }
}

//! Tells which stars' folders changed, so that a follower of logs reads when there is something and sleeps otherwise.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use model::StarId;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::ready::{Ready, register};

/// Bytes of events taken at once: some hundred of them.
const EVENTS: usize = 8 << 10;

/// Watches folders by inotify (inotify(7)).
#[derive(Debug)]
pub(crate) struct Watcher {
    events: AsyncFd<Ready<OwnedFd>>,
    stars: HashMap<i32, StarId>,
}

impl Watcher {
    pub(crate) fn new() -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { events: register(events)?, stars: HashMap::new() })
    }

    /// Watches a star's folder; false when there is none (not yet, or no more).
    pub(crate) fn add(&mut self, star: StarId, folder: &Path) -> io::Result<bool> {
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.events.get_ref().0, folder, what) {
            Ok(watch) => {
                self.stars.insert(watch, star);
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a folder changed. When the kernel dropped events, every star counts as changed.
    pub(crate) async fn changed(&mut self) -> io::Result<BTreeSet<StarId>> {
        loop {
            let mut guard = self.events.readable().await?;
            match guard.try_io(|events| read(&events.get_ref().0, &self.stars)) {
                Ok(Ok(changed)) if changed.is_empty() => {}
                Ok(changed) => return changed,
                Err(_would_block) => {}
            }
        }
    }

    /// Stops watching a star.
    pub(crate) fn remove(&mut self, star: StarId) {
        let events = &self.events.get_ref().0;
        self.stars.retain(|&watch, &mut watched| {
            if watched == star {
                // It fails when the folder is gone, and the watch with it.
                let _ = inotify::remove_watch(events, watch);
            }
            watched != star
        });
    }
}

fn read(events: &OwnedFd, stars: &HashMap<i32, StarId>) -> io::Result<BTreeSet<StarId>> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    let mut changed = BTreeSet::new();
    let mut any = false;
    loop {
        match reader.next() {
            Ok(event) => {
                any = true;
                match stars.get(&event.wd()) {
                    Some(&star) => drop(changed.insert(star)),
                    None if event.wd() < 0 => changed.extend(stars.values()),
                    None => {}
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if any => return Ok(changed),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_changed_is_named_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        for path in [&one, &two] {
            std::fs::create_dir(path).unwrap();
        }
        let mut watcher = Watcher::new().unwrap();
        assert!(watcher.add(StarId(1), &one).unwrap());
        assert!(watcher.add(StarId(2), &two).unwrap());
        assert!(!watcher.add(StarId(3), &folder.path().join("none")).unwrap());
        std::fs::write(two.join("log"), "x").unwrap();
        assert_eq!(watcher.changed().await.unwrap(), BTreeSet::from([StarId(2)]));
        watcher.remove(StarId(2));
        std::fs::write(two.join("log"), "y").unwrap();
        std::fs::write(one.join("log"), "y").unwrap();
        assert_eq!(watcher.changed().await.unwrap(), BTreeSet::from([StarId(1)]));
    }
}

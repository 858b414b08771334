//! A star's standard output and error on their way to its log.
//!
//! They are named pipes in the star's folder, which the star holds open for reading too. So they live as long as the
//! star, whatever becomes of the nursery: what was written waits in them, a write never meets a closed pipe, and
//! the next nursery opens them by name. How much is taken from one star is bounded per tick: a flood waits in the
//! star's own write call, not in the nursery.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Bytes, Limits, StarId};
use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::log::{LineCutter, LogSource, LogWriter};

pub(crate) const TICK: Duration = Duration::from_millis(100);
/// One read: the size of a pipe.
const READ: usize = 64 * 1024;
const NAMES: [(LogSource, &str); 2] = [(LogSource::Out, "stdout"), (LogSource::Err, "stderr")];

/// The star's ends.
pub(crate) struct StarEnds {
    pub(crate) out: OwnedFd,
    pub(crate) err: OwnedFd,
}

/// The nursery's ends.
#[derive(Debug)]
pub(crate) struct Pipes {
    readers: [OwnedFd; 2],
    cutters: [LineCutter; 2],
    log: LogWriter,
    tick: Instant,
    taken: usize,
    /// Bytes per tick: what came, or what the log gets for it, where that is more.
    most: usize,
}

/// Whether to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There may be more now.
    More,
    Empty,
    /// Enough for this tick.
    Enough,
}

/// A running star's standard output and error, to write into its log beside it.
pub fn outputs(data_dir: &Path, star: StarId) -> io::Result<[OwnedFd; 2]> {
    let folder = crate::place::star(data_dir, star);
    // For reading too, as the star has them: opened for writing alone it would wait for a reader that is no more.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = |name: &str| Ok::<_, io::Error>(rustix::fs::open(folder.join(name), flags, Mode::empty())?);
    Ok([open("stdout")?, open("stderr")?])
}

impl Pipes {
    /// Makes the pipes, owned by the star's user so that it can open `/dev/stdout`.
    pub(crate) fn make(folder: &Path, owner: Option<u32>) -> io::Result<(StarEnds, Self)> {
        // What is there is what is made here; and with `NOFOLLOW` CRIU could not open it anew, by a link of /proc.
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let star_end = |name: &str| -> io::Result<OwnedFd> {
            let path = folder.join(name);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            let fd = rustix::fs::open(&path, flags, Mode::empty())?;
            if let Some(owner) = owner {
                rustix::fs::fchown(
                    &fd,
                    Some(rustix::fs::Uid::from_raw(owner)),
                    Some(rustix::fs::Gid::from_raw(owner)),
                )?;
            }
            Ok(fd)
        };
        let ends = StarEnds { out: star_end("stdout")?, err: star_end("stderr")? };
        Ok((ends, Self::open(folder)?))
    }

    /// Opens pipes that exist, as for a star that is adopted.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let reader = |name: &str| rustix::fs::open(folder.join(name), flags, Mode::empty());
        Ok(Self {
            readers: [reader(NAMES[0].1)?, reader(NAMES[1].1)?],
            cutters: NAMES.map(|(source, _)| LineCutter::new(source)),
            log: LogWriter::new(folder),
            tick: Instant::now(),
            taken: 0,
            most: per_tick(None),
        })
    }

    /// Sets how much is taken in a second from now on.
    pub(crate) fn limit(&mut self, rate: Option<Bytes>) {
        self.most = per_tick(rate);
    }

    /// What another program needs to go on: the readers, and what came of a line that is not at its end.
    pub(crate) fn unfinished(&self) -> [(BorrowedFd<'_>, &[u8]); 2] {
        let [out, err] = &self.readers;
        let [from_out, from_err] = &self.cutters;
        [(out.as_fd(), from_out.rest()), (err.as_fd(), from_err.rest())]
    }

    /// Goes on where another program stopped.
    pub(crate) fn go_on(folder: &Path, readers: [OwnedFd; 2], rests: [Vec<u8>; 2]) -> Self {
        let [out, err] = rests;
        let cutters = [LineCutter::go_on(LogSource::Out, out), LineCutter::go_on(LogSource::Err, err)];
        Self { readers, cutters, log: LogWriter::new(folder), tick: Instant::now(), taken: 0, most: per_tick(None) }
    }

    /// The star's folder has another name now.
    pub(crate) fn moved(&mut self, folder: &Path) {
        self.log.moved(folder);
    }

    /// Removes the names; what is open stays.
    pub(crate) fn remove(folder: &Path) {
        for (_, name) in NAMES {
            let _ = std::fs::remove_file(folder.join(name));
        }
    }

    pub(crate) fn reader(&self, source: LogSource) -> BorrowedFd<'_> {
        self.readers[index(source)].as_fd()
    }

    /// Takes one read's worth. What cannot be written to the disk is lost: a full disk must not stop the star.
    pub(crate) fn drain(&mut self, source: LogSource, now: Instant) -> Drained {
        if now.duration_since(self.tick) >= TICK {
            (self.tick, self.taken) = (now, 0);
        }
        if self.taken >= self.most {
            return Drained::Enough;
        }
        let mut bytes = Vec::with_capacity(READ.min(self.most - self.taken));
        let Ok(length @ 1..) = rustix::io::read(&self.readers[index(source)], spare_capacity(&mut bytes)) else {
            return Drained::Empty;
        };
        let (written, _) = self.cutters[index(source)].take(&bytes, unix_ms(), &mut self.log);
        self.taken += length.max(written);
        Drained::More
    }

    /// Whether a new tick has begun since there was enough.
    pub(crate) fn rested(&self, now: Instant) -> bool {
        now.duration_since(self.tick) >= TICK
    }

    /// Takes what is left after the star's end: at most what two pipes hold.
    pub(crate) fn finish(mut self) {
        self.most = usize::MAX;
        for (source, _) in NAMES {
            while self.drain(source, self.tick) == Drained::More {}
            let _ = self.cutters[index(source)].finish(unix_ms(), &mut self.log);
        }
    }
}

fn per_tick(rate: Option<Bytes>) -> usize {
    let rate = rate.map_or(Limits::LOG_RATE_MAX, |rate| rate.min(Limits::LOG_RATE_MAX));
    ((rate.0 as usize) * TICK.as_millis() as usize / 1000).max(1)
}

fn index(source: LogSource) -> usize {
    match source {
        LogSource::Out => 0,
        LogSource::Err => 1,
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

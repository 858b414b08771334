//! The memory of a star: kept with a snapshot while the star stands still, and given to the one that is to go on from it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Answer;
use isolate::criu::{Criu, KERNEL_FACTS, last_error};
use isolate::memory::{DUMP_LOG, Keeping, Kept, Memory, settle};
use model::{Code, Name, Network, Problem, Program, ServiceKey, StarId, StarPhase, StarTemplate};
use node::Node;
use serde::{Deserialize, Serialize};
use store::Snapshots;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::beside::beside;
use crate::link::Link;

/// How to get it.
const CRIU_HELP: &str = "see `rads c doctor`; nothing was changed";

/// The star whose memory is to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Sitter {
    pub(crate) star: StarId,
    pub(crate) name: String,
    template: StarTemplate,
}

/// What a snapshot has to say of a memory, beside its images.
#[derive(Debug, Serialize, Deserialize)]
struct Details {
    kept: Kept,
    free: u32,
    template: StarTemplate,
}

impl Sitter {
    /// The one star of a service, if its memory can be kept.
    pub(crate) fn of(node: &Node, service: &ServiceKey) -> Result<Self, Problem> {
        let alive = |phase: StarPhase| !matches!(phase, StarPhase::Assigned | StarPhase::Ended);
        let stars = node.state().stars.values().filter(|star| star.service == *service && alive(star.phase));
        let stars: Vec<_> = stars.collect();
        let refuse = |code, message: String, help: &str| Err(Problem::new(code, message).help(help));
        let star = match stars[..] {
            [star] => star,
            [] => {
                let message = format!("service `{service}` has no star that runs");
                return refuse(Code::Conflict, message, "start it first: there is no memory to keep");
            }
            _ => {
                let message =
                    format!("service `{service}` has {} stars, and a snapshot keeps the memory of one", stars.len());
                return refuse(Code::Unsupported, message, "`rads c scale SERVICE 1`; nothing was changed");
            }
        };
        let name = star.name();
        if star.phase == StarPhase::Paused {
            let message = format!("star `{name}` is paused");
            return refuse(Code::Conflict, message, "`rads c resume` lets it go on");
        }
        can_be_kept(&name, &star.template)?;
        Ok(Self { star: star.id, name, template: (*star.template).clone() })
    }
}

/// Refuses a star of a kind whose memory cannot be kept.
fn can_be_kept(name: &str, template: &StarTemplate) -> Result<(), Problem> {
    let unsupported = |why: &str, help: &str| {
        Err(Problem::new(Code::Unsupported, format!("the memory of star `{name}` cannot be kept: {why}")).help(help))
    };
    if matches!(template.program, Program::Script(_)) && !template.checkpoint {
        let why = "a script is the first process of its star, and that cannot be made again in another";
        return unsupported(why, "with `checkpoint: true` it is not; without `--memory` its files are kept");
    }
    if template.rootfs.is_some() {
        return unsupported("its root file system is its own", "without `--memory` its files are kept");
    }
    if template.network == Network::Host {
        return unsupported(
            "it is on the host's network, whose ports another star cannot have",
            "give it a network of its own",
        );
    }
    Ok(())
}

/// Where what a star's programs write is in its own memory, or on a disk that is gone with it.
fn own_folders(template: &StarTemplate) -> Vec<String> {
    let disk = template.limits.disk.map(|_| "/tmp".to_owned());
    // `/tmp` and `/dev/shm` are folders of `/run`, unless there is a disk.
    std::iter::once("/run".to_owned()).chain(disk).chain(template.interior.tmpfs.keys().cloned()).collect()
}

/// CRIU, if it works on this machine, and a kit of it.
async fn criu(data_dir: PathBuf) -> Result<(Criu, PathBuf), Problem> {
    if !rustix::process::geteuid().is_root() {
        let message =
            "the memory of stars can be kept by root alone, who may read what their system calls are filtered by";
        return Err(Problem::new(Code::Unsupported, message).help("run the agent as root; nothing was changed"));
    }
    beside(move || {
        let found = Criu::find().and_then(|criu| {
            criu.check()?;
            let kit = criu.kit(&data_dir.join("criu"))?;
            Ok((criu, kit))
        });
        found.map_err(|why| Problem::new(Code::Unsupported, format!("memory cannot be kept: {why}")).help(CRIU_HELP))
    })
    .await
}

/// What it takes to keep a memory with a snapshot that is still to be taken.
pub(crate) struct Tripod {
    snapshots: Arc<Snapshots>,
    snapshot: Name,
    kit: PathBuf,
    images: PathBuf,
    /// What is written is the snapshot's; until then it goes when this does.
    listed: bool,
}

/// A star that stands still, its memory written. It goes on when this is dropped.
pub(crate) struct Standing {
    tripod: Tripod,
    sitter: Sitter,
    kept: Kept,
    go_on: pipe::Sender,
    ended: Answer<'static, i32>,
}

impl Tripod {
    /// Makes sure of everything that no star need stand still for.
    pub(crate) async fn set_up(snapshots: Arc<Snapshots>, data_dir: PathBuf, snapshot: &Name) -> Result<Self, Problem> {
        let (criu, kit) = criu(data_dir).await?;
        let snapshot = snapshot.clone();
        beside(move || {
            let images = snapshots.begin_memory(&snapshot)?;
            let unwritten =
                |why| Problem::new(Code::Unavailable, format!("memory cannot be kept: {why}")).help(CRIU_HELP);
            let tripod = Self { snapshots, snapshot, kit, images, listed: false };
            criu.write_kernel_facts(&tripod.images).map_err(unwritten)?;
            Ok(tripod)
        })
        .await
    }

    /// Has a star stand still and its memory written.
    pub(crate) async fn keep(self, link: &Link, sitter: &Sitter) -> Result<Standing, Problem> {
        let ends = || -> std::io::Result<_> {
            let (go_on, theirs) = pipe::pipe()?;
            let (said, told) = pipe::pipe()?;
            let null = File::options().write(true).open("/dev/null")?;
            Ok((go_on, told, vec![theirs.into_blocking_fd()?, said.into_blocking_fd()?, null.into()]))
        };
        let (go_on, mut told, fds) = ends().map_err(|error| {
            Problem::new(Code::Unavailable, format!("no pipes for CRIU: {error}")).help("nothing was changed")
        })?;
        let (asked, star) = (link.clone(), sitter.star);
        let folders = own_folders(&sitter.template);
        let keeping = Keeping { kit: self.kit.clone(), images: self.images.clone(), folders };
        let mut ended: Answer<'static, i32> = Box::pin(async move { asked.keep_memory(star, keeping, fds).await });
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = tokio::select! {
                biased;
                read = told.read(&mut buffer) => read.unwrap_or(0),
                result = &mut ended => return Err(self.why_not(sitter, result)),
            };
            if read == 0 {
                return Err(self.why_not(sitter, ended.await));
            }
            bytes.extend_from_slice(&buffer[..read]);
            if let Ok(kept) = rmp_serde::from_slice(&bytes) {
                return Ok(Standing { tripod: self, sitter: sitter.clone(), kept, go_on, ended });
            }
        }
    }

    fn why_not(&self, sitter: &Sitter, ended: Result<i32, Problem>) -> Problem {
        let why = match ended {
            Ok(_) => last_error(&fs::read_to_string(self.images.join(DUMP_LOG)).unwrap_or_default()),
            Err(problem) => problem.message,
        };
        let message = format!("the memory of star `{}` cannot be kept: {why}", sitter.name);
        Problem::new(Code::Unavailable, message).help("nothing was kept, and the star goes on")
    }
}

impl Standing {
    /// Lets it go on, and returns when it does.
    pub(crate) async fn let_go(self) -> Exposed {
        let Self { tripod, sitter, kept, go_on, ended } = self;
        drop(go_on);
        // However that ended: what is written is written.
        let _ = ended.await;
        Exposed { tripod, sitter, kept }
    }
}

/// A memory that is written but not listed yet.
pub(crate) struct Exposed {
    tripod: Tripod,
    sitter: Sitter,
    kept: Kept,
}

impl Exposed {
    /// Lists what was written: from then on it is the snapshot's. Blocks on the disk.
    pub(crate) fn list(self) -> Result<(), Problem> {
        let Self { mut tripod, sitter: Sitter { name: star, template, .. }, kept } = self;
        let unusable = |error: std::io::Error| {
            Problem::new(Code::Internal, format!("what CRIU wrote cannot be used: {error}")).help("nothing was kept")
        };
        let free = settle(&tripod.images, &kept).map_err(unusable)?;
        for name in [DUMP_LOG, KERNEL_FACTS] {
            let _ = fs::remove_file(tripod.images.join(name));
        }
        let details = rmp_serde::to_vec_named(&Details { kept, free, template });
        let details = details.map_err(|error| unusable(std::io::Error::other(error)))?;
        tripod.snapshots.keep_memory(&tripod.snapshot, star, details)?;
        tripod.listed = true;
        Ok(())
    }
}

impl Drop for Tripod {
    fn drop(&mut self) {
        if !self.listed {
            // If it cannot be removed now, the next agent does it.
            let _ = self.snapshots.drop_memory(&self.snapshot);
        }
    }
}

/// Memories on their way to stars.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    waiting: Mutex<BTreeMap<ServiceKey, (Memory, Outcome)>>,
    starting: Mutex<BTreeMap<StarId, Outcome>>,
}

type Outcome = oneshot::Sender<Result<StarId, String>>;

impl Memories {
    /// The next star of a service is to go on from this memory. Resolves when it does, or says why not.
    pub(crate) fn give(&self, service: ServiceKey, memory: Memory) -> oneshot::Receiver<Result<StarId, String>> {
        let (outcome, known) = oneshot::channel();
        lock(&self.waiting).insert(service, (memory, outcome));
        known
    }

    /// No star of a service has come for it.
    pub(crate) fn take_back(&self, service: &ServiceKey) {
        lock(&self.waiting).remove(service);
    }

    /// What a star that is about to start goes on from.
    pub(crate) fn take(&self, service: &ServiceKey, star: StarId) -> Option<Memory> {
        let (memory, outcome) = lock(&self.waiting).remove(service)?;
        lock(&self.starting).insert(star, outcome);
        Some(memory)
    }

    /// What came of a start.
    pub(crate) fn note(&self, star: StarId, result: Result<(), &str>) {
        if let Some(outcome) = lock(&self.starting).remove(&star) {
            let _ = outcome.send(result.map(|()| star).map_err(str::to_owned));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The memory of a snapshot, made ready for a star of a service as it is now.
pub(crate) async fn open(
    snapshots: &Arc<Snapshots>,
    data_dir: PathBuf,
    snapshot: &Name,
    service: &ServiceKey,
    template: StarTemplate,
) -> Result<Option<Memory>, Problem> {
    let (kept_in, name) = (Arc::clone(snapshots), snapshot.clone());
    let Some(stored) = beside(move || kept_in.open_memory(&name)).await? else { return Ok(None) };
    let details: Details = rmp_serde::from_slice(&stored.details)
        .map_err(|error| Problem::new(Code::DataCorrupt, format!("the memory of snapshot `{snapshot}`: {error}")))?;
    if let Some(what) = difference(&details.template, &template) {
        let message =
            format!("service `{service}` has another {what} than the star whose memory snapshot `{snapshot}` has");
        return Err(Problem::new(Code::Conflict, message).help("deploy it as it was then; nothing was changed"));
    }
    let (criu, kit) = criu(data_dir).await?;
    let images = stored.images.clone();
    beside(move || {
        criu.write_kernel_facts(&images).map_err(|why| {
            Problem::new(Code::Unavailable, format!("memory cannot be brought back: {why}")).help(CRIU_HELP)
        })
    })
    .await?;
    Ok(Some(Memory { kit, images: stored.images, kept: details.kept, free: details.free }))
}

/// What of a star has to be as it was for its memory to fit: what its files are and where.
fn difference(then: &StarTemplate, now: &StarTemplate) -> Option<&'static str> {
    if then.bundle != now.bundle {
        return Some("bundle");
    }
    if (&then.program, &then.args, then.checkpoint) != (&now.program, &now.args, now.checkpoint) {
        return Some("program");
    }
    if then.rootfs != now.rootfs {
        return Some("root file system");
    }
    if then.network != now.network || then.port != now.port {
        return Some("network");
    }
    if then.volumes != now.volumes {
        return Some("set of volumes");
    }
    if then.interior != now.interior {
        return Some("interior");
    }
    if then.weakened != now.weakened {
        return Some("set of walls");
    }
    // What a memory does was done with the rights that its star had.
    (then.access != now.access).then_some("access")
}

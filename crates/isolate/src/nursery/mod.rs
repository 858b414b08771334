//! The nursery's life: set-up, one loop, and the end that leaves nothing.
//!
//! It waits for agents, for stars that report or end, for what stars write, and does what is due. Nothing in the loop
//! blocks and nothing is remembered that could not be found again: a nursery that dies is followed by one that adopts
//! its stars. It has one thread, because a star is a copy of it.

mod handover;
mod hold;
mod lease;
mod peers;
mod poller;
mod program;
mod settle;
mod upgrade;
mod yielding;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{ExitCause, Limits, StarId};
use serde::{Deserialize, Serialize};

pub use self::handover::can_take_over;
use self::hold::Still;
use self::lease::Leases;
use self::peers::Peers;
use self::poller::{Poller, Source, Token};
use self::upgrade::Check;
use self::yielding::Yielding;
use crate::cgroup::without_hurry;
use crate::exec::Task;
use crate::fault::{Doing, Fault, plain};
use crate::log::LogSource;
use crate::memory::{Keeping, Target};
use crate::order::{StarOrder, scrub};
use crate::pipes::{Drained, Pipes, TICK};
use crate::private::Private;
use crate::protocol::{DOORS_MAX, Message, Request, StarReport, VERSION};
use crate::record::Record;
use crate::star::Told;
use crate::start::{Launched, Site, borrowed};
use crate::sys::signal::SignalFd;
use crate::walls::Walls;
use crate::{child, exec, place, star};

/// Where a nursery lives: everything it needs is below one folder.
#[derive(Debug, Clone)]
pub struct NurseryConfig {
    /// `nursery.sock`, `nursery.pid`, `root/` and `stars/<id>/` are made in it.
    pub data_dir: PathBuf,
}

/// What a RADS star is given when its walls stand.
#[derive(Debug)]
pub struct ScriptStart<'a> {
    /// The script as the star sees it, below `/app`, which is also the current folder.
    pub path: &'a Path,
    pub args: &'a [String],
    /// The environment; the process's own has been set to it too.
    pub env: &'a BTreeMap<String, String>,
    /// To be written to once when the script is ready; nobody listens when it is `None`.
    pub ready_fd: Option<OwnedFd>,
}

/// What a RADS star runs, given by the program.
#[derive(Debug, Clone, Copy)]
pub struct StarEntry {
    /// Runs the script; the result is the star's exit code.
    pub run: fn(ScriptStart<'_>) -> i32,
    /// Goes through the motions of `run` without a script, in a process made ahead: what it touches is then in that
    /// process's memory and need not be copied while somebody waits. What it leaves open stays so for the script, and for
    /// nobody else; it must start no threads.
    pub rehearse: fn(),
}

/// How long nothing must happen before more is made ahead than the next start needs: longer than the pause between two
/// orders of a burst.
const QUIET: Duration = Duration::from_millis(3);
/// How often a group that still empties is tried again. The kernel needs a few milliseconds at most.
const RETRY: Duration = Duration::from_millis(2);

/// The nursery's whole life. Returns after `Shutdown` (or SIGTERM, SIGINT), when every star has ended and all that was
/// made is gone but the logs. The calling process must have no other thread, and is changed for good: its mount
/// namespace, its signal mask and, without privileges, its user namespace. `entry` is called in copies of it.
pub fn serve(config: NurseryConfig, entry: StarEntry) -> Result<(), Fault> {
    settle::settle(&config.data_dir, entry)?.live()
}

/// The same life, begun by another program in this process, which has left its state in a descriptor; see
/// `Request::Upgrade`. What was the other's limits, namespaces and children is this one's.
pub fn take_over(config: NurseryConfig, entry: StarEntry, state: i32) -> Result<(), Fault> {
    settle::take_over(&config.data_dir, entry, state)?.live()
}

struct Nursery {
    /// Makes it the only one on its data folder.
    lock: File,
    site: Site,
    walls: Walls,
    poller: Poller,
    listener: OwnedFd,
    signals: SignalFd,
    peers: Peers,
    stars: BTreeMap<StarId, Star>,
    execs: BTreeMap<u64, Exec>,
    next_exec: u64,
    /// Logs that gave enough for this tick.
    resting: Vec<(StarId, LogSource)>,
    /// Making spares failed; another attempt would fail too.
    spares_fail: bool,
    leases: Leases,
    yielding: Yielding,
    /// The program that may take this one's place.
    check: Option<Check>,
    stopping: bool,
}

struct Star {
    record: Record,
    folder: PathBuf,
    phase: Phase,
    told: Told,
    network: Option<OwnedFd>,
    pidfd: Option<(OwnedFd, Token)>,
    logs: Option<Logs>,
    still: Still,
}

struct Logs {
    pipes: Pipes,
    /// `None` while it rests.
    tokens: [Option<Token>; 2],
}

enum Phase {
    /// Cloned; its walls are not reported yet.
    Starting {
        asked: Instant,
        report: OwnedFd,
        token: Token,
    },
    Running,
    /// Its processes are gone, its groups not yet.
    Leaving(Outcome),
    Ended,
}

/// What to tell of a star that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Outcome {
    Exited(ExitCause),
    NeverStood(String),
}

/// A command inside a star and whom to tell of its end.
struct Exec {
    running: exec::Running,
    token: Token,
    peer: u64,
    asked_as: u64,
}

impl Nursery {
    /// Runs to the end, and leaves nothing but logs.
    fn live(mut self) -> Result<(), Fault> {
        let result = self.run();
        self.site.disks.empty_trash();
        self.site.hierarchies.tear_down();
        self.site.bridge.tear_down();
        place::remove_socket(&self.site.data_dir);
        let _ = fs::remove_file(place::pid_file(&self.site.data_dir));
        drop(self.lock);
        result
    }

    fn run(&mut self) -> Result<(), Fault> {
        self.take_over_leases();
        self.let_nobody_give_way();
        loop {
            let leaving = self.stars.values().any(|star| matches!(star.phase, Phase::Leaving(_)));
            if self.stopping && self.stars.values().all(|star| matches!(star.phase, Phase::Ended)) {
                return Ok(());
            }
            let prepare = !self.stopping && !self.spares_fail && self.site.wants_spares();
            let tidy = self.site.disks.has_trash();
            let holding = self.holds_begin();
            let timeout = match (leaving || holding, prepare, self.resting.is_empty()) {
                // Whatever comes meanwhile would have to make it itself.
                (_, true, _) if self.site.has_no_protostar() && !self.starts() => Some(Duration::ZERO),
                (true, ..) => Some(RETRY),
                (_, true, _) => Some(QUIET),
                _ if tidy => Some(QUIET),
                (_, _, false) => Some(TICK),
                _ => None,
            };
            let patience = self.check.as_ref().map(|check| check.deadline.saturating_duration_since(Instant::now()));
            let lease = self.leases.patience(star::boottime());
            let look = self.yielding.patience(Instant::now());
            let timeout = timeout.into_iter().chain(patience).chain(lease).chain(look).min();
            let ready = self.poller.wait(timeout).doing(|| "cannot wait for events".to_owned())?;
            if ready.is_empty() && prepare {
                self.spares_fail = without_hurry(|| self.site.make_spare()).is_err();
            } else if ready.is_empty() && tidy {
                without_hurry(|| self.site.disks.empty_trash_a_little());
            }
            for (token, source) in ready {
                // An event before it may have ended what this one is about.
                if self.poller.knows(token) {
                    self.handle(source);
                }
            }
            self.wake_logs();
            self.lose_patience();
            self.end_leases();
            self.look_at_spenders();
            self.let_go();
            if leaving {
                without_hurry(|| self.see_off());
            }
        }
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Listener => self.peers.accept(&self.listener, &mut self.poller),
            Source::Signals => self.take_signals(),
            Source::Peer(peer) => self.serve_peer(peer),
            Source::Report(star) => self.take_report(star),
            Source::End(star) => self.take_end(star),
            Source::Log(star, source) => without_hurry(|| self.drain(star, source)),
            Source::ExecEnd(exec) => self.take_exec_end(exec),
            Source::Check => self.hear_successor(),
        }
    }

    /// Whether a star is on its way: what is made ahead now would be in its way.
    fn starts(&self) -> bool {
        self.stars.values().any(|star| matches!(star.phase, Phase::Starting { .. }))
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            // SIGHUP and the rest are of no concern: ends of children are seen through their descriptors.
            if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) {
                self.shut_down();
            }
        }
    }

    /// One request per turn, so that a busy agent does not starve the logs.
    fn serve_peer(&mut self, peer: u64) {
        self.peers.flush(peer, &mut self.poller);
        if let Some((request, fds)) = self.peers.receive(peer, &mut self.poller) {
            self.answer(peer, request, fds);
        }
    }

    fn answer(&mut self, peer: u64, request: Request, fds: Vec<OwnedFd>) {
        if !matches!(request, Request::Hello { .. } | Request::Upgrade { .. }) && !self.peers.is_welcome(peer) {
            return self.refuse(peer, None, "say hello first");
        }
        match request {
            Request::Hello { version: VERSION } => {
                self.peers.welcome(peer);
                let stars = self.stars.values().map(Star::report).collect();
                let (walls, pid) = (self.walls.clone(), std::process::id());
                self.tell(peer, Message::Welcome { version: VERSION, pid, stars, walls });
            }
            Request::Hello { version } => {
                let reason = format!("this nursery speaks version {VERSION}, not {version}");
                self.refuse(peer, None, &reason);
            }
            Request::Start(mut order) => {
                let secrets = order.take_secrets();
                self.start(peer, &order, &secrets);
                scrub(order.env.into_values().chain(order.args));
            }
            Request::Signal { star, signal } => self.signal(peer, star, signal),
            Request::Kill { star } => {
                if let Some(known) = self.stars.get_mut(&star) {
                    known.kill();
                } else {
                    self.refuse(peer, Some(star), "no such star");
                }
            }
            Request::Lease { stars, for_ms } => {
                self.renew_leases(stars, Duration::from_millis(for_ms));
            }
            Request::Limit { star, limits } => {
                let problem = self.limit(star, &limits).err();
                self.tell(peer, Message::Limited { star, problem });
            }
            Request::Freeze { star, frozen } => {
                let problem = self.pause(star, frozen).err();
                self.tell(peer, Message::Frozen { star, problem });
            }
            Request::Hold { star } => self.hold(peer, star),
            Request::Door { star, token, count } => self.open_doors(peer, star, token, count),
            Request::Exec { star, token, launch, env } => {
                let ran = launch.check().and_then(|()| self.exec(peer, star, token, Task::Run(&launch), &env, fds));
                if let Err(reason) = ran {
                    self.tell(peer, Message::ExecEnded { token, result: Err(reason) });
                }
                scrub(env.into_values().chain(launch.into_words()));
            }
            Request::Copy { star, token, copying } => {
                let copied = self.exec(peer, star, token, Task::Copy(&copying), &BTreeMap::new(), fds);
                if let Err(reason) = copied {
                    self.tell(peer, Message::ExecEnded { token, result: Err(reason) });
                }
            }
            Request::KeepMemory { star, token, keeping } => {
                if let Err(reason) = self.keep_memory(peer, star, token, &keeping, fds) {
                    self.tell(peer, Message::ExecEnded { token, result: Err(reason) });
                }
            }
            Request::HangUpExec { token } => self.signal_exec(peer, token, libc::SIGHUP),
            Request::EndExec { token } => self.signal_exec(peer, token, libc::SIGKILL),
            Request::Forget { star } => self.forget(peer, star),
            Request::Shutdown => self.shut_down(),
            Request::Upgrade { args } => self.ask_successor(peer, args, fds),
        }
    }

    fn signal_exec(&self, peer: u64, token: u64, signal: i32) {
        let mut execs = self.execs.values();
        if let Some(exec) = execs.find(|exec| (exec.peer, exec.asked_as) == (peer, token)) {
            exec.running.signal(signal);
        }
    }

    fn tell(&mut self, peer: u64, message: Message) {
        self.peers.send(peer, message, Vec::new(), &mut self.poller);
    }

    fn refuse(&mut self, peer: u64, star: Option<StarId>, reason: &str) {
        self.tell(peer, Message::Refused { star, reason: reason.to_owned() });
    }

    fn start(&mut self, peer: u64, order: &StarOrder, secrets: &[Private]) {
        let asked = Instant::now();
        let id = order.star;
        if self.stopping {
            return self.refuse(peer, Some(id), "the nursery is shutting down");
        }
        if self.stars.contains_key(&id) {
            return self.refuse(peer, Some(id), "a star of this id is known already");
        }
        let folder = place::star(&self.site.data_dir, id);
        let launched = match self.yielding.suspects(&order.hostname, asked) {
            true => without_hurry(|| self.site.launch(order, secrets)),
            false => self.site.launch(order, secrets),
        };
        // What failed a while ago may succeed again.
        self.spares_fail = false;
        let mut star = Star {
            record: Record::new(id, order.generation, order.network),
            folder,
            phase: Phase::Ended,
            told: Told::default(),
            network: None,
            pidfd: None,
            logs: None,
            still: Still::default(),
        };
        let outcome = launched.and_then(|launched| {
            self.watch(&mut star, asked, launched).map_err(|error| format!("cannot watch the star: {}", plain(&error)))
        });
        if outcome.is_ok() {
            self.begin_account(&star, &order.hostname);
        }
        if let Err(reason) = outcome {
            self.site.clean_up(&star.record, &star.folder);
            // How it ended is kept there all the same; without it only the agent that asked knows.
            let _ = place::make_private(&star.folder);
            star.conclude(ExitCause::StartFailed { reason: reason.clone() });
            self.peers.broadcast(&Message::StartFailed { star: id, reason }, &mut self.poller);
        }
        self.stars.insert(id, star);
    }

    /// Registers everything a new star may do.
    fn watch(&mut self, star: &mut Star, asked: Instant, launched: Launched) -> std::io::Result<()> {
        let id = launched.record.star;
        star.record = launched.record;
        star.network = launched.network;
        let token = self.poller.add(&launched.report, Source::Report(id))?;
        star.phase = Phase::Starting { asked, report: launched.report, token };
        self.attend(star, launched.pidfd, Some(launched.pipes))
    }

    /// Registers a star's end and its logs.
    fn attend(&mut self, star: &mut Star, pidfd: OwnedFd, pipes: Option<Pipes>) -> std::io::Result<()> {
        let id = star.record.star;
        let token = self.poller.add(&pidfd, Source::End(id))?;
        star.pidfd = Some((pidfd, token));
        if let Some(pipes) = pipes {
            let mut watch = |source| self.poller.add(pipes.reader(source), Source::Log(id, source)).map(Some);
            let tokens = [watch(LogSource::Out)?, watch(LogSource::Err)?];
            star.logs = Some(Logs { pipes, tokens });
        }
        Ok(())
    }

    /// The star's walls stand, or it says why they do not. Silence means that it ended first; `take_end` sees that.
    fn take_report(&mut self, id: StarId) {
        let Some(star) = self.stars.get_mut(&id) else { return };
        let Phase::Starting { asked, report, token } = &star.phase else { return };
        let mut text = [0; 4096];
        let length = rustix::io::read(report, &mut text).unwrap_or(0);
        let asked = *asked;
        self.poller.remove(report, *token);
        match text[..length].split_first() {
            Some((&child::STANDS, _)) => {
                let elapsed_us = asked.elapsed().as_micros() as u64;
                let Record { pid, start_time, .. } = star.record;
                star.phase = Phase::Running;
                if star.has_quota() {
                    self.yielding.expect(Instant::now());
                }
                let started = Message::Started { star: id, pid, start_time, elapsed_us };
                self.peers.broadcast(&started, &mut self.poller);
            }
            Some((_, reason)) => {
                let reason = String::from_utf8_lossy(reason).into_owned();
                star.phase = Phase::Leaving(Outcome::NeverStood(reason));
                // Its end is near; `take_end` waits for it.
                star.kill();
            }
            None => {
                let reason = "it ended before its walls stood".to_owned();
                star.phase = Phase::Leaving(Outcome::NeverStood(reason));
            }
        }
    }

    /// The star's first process ended, and with it every other in its process namespace.
    fn take_end(&mut self, id: StarId) {
        if matches!(self.stars.get(&id), Some(Star { phase: Phase::Starting { .. }, .. })) {
            self.take_report(id);
        }
        let Some(star) = self.stars.get_mut(&id) else { return };
        let pidfd = star.pidfd.take();
        let cause = star::cause(&star.record, &star.folder, pidfd.as_ref().map(|(fd, _)| fd.as_fd()), star.told);
        if let Some((pidfd, token)) = pidfd {
            self.poller.remove(&pidfd, token);
        }
        if let Some(Logs { pipes, tokens }) = star.logs.take() {
            for (source, token) in [LogSource::Out, LogSource::Err].into_iter().zip(tokens) {
                if let Some(token) = token {
                    self.poller.remove(pipes.reader(source), token);
                }
            }
            pipes.finish();
        }
        star.network = None;
        let told = star.told;
        if !matches!(star.phase, Phase::Leaving(_)) {
            star.phase = Phase::Leaving(Outcome::Exited(cause.clone()));
        }
        self.close_account(id, told, &cause);
        without_hurry(|| self.see_off());
    }

    /// Removes the groups of stars that ended, and tells of those whose groups are gone.
    fn see_off(&mut self) {
        let mut told = Vec::new();
        for (&id, star) in &mut self.stars {
            if !matches!(star.phase, Phase::Leaving(_))
                || star.pidfd.is_some()
                || !self.site.clean_up(&star.record, &star.folder)
            {
                continue;
            }
            let Phase::Leaving(outcome) = std::mem::replace(&mut star.phase, Phase::Ended) else { continue };
            told.push(match outcome {
                Outcome::Exited(cause) => {
                    star.conclude(cause.clone());
                    Message::Exited { star: id, cause }
                }
                Outcome::NeverStood(reason) => {
                    star.conclude(ExitCause::StartFailed { reason: reason.clone() });
                    Message::StartFailed { star: id, reason }
                }
            });
        }
        for message in told {
            self.peers.broadcast(&message, &mut self.poller);
        }
    }

    fn signal(&mut self, peer: u64, id: StarId, signal: i32) {
        let Some(star) = self.stars.get_mut(&id) else { return self.refuse(peer, Some(id), "no such star") };
        let Some((pidfd, _)) = &star.pidfd else { return };
        if star::signal(&star.record, pidfd.as_fd(), signal, &mut star.told).is_err() {
            self.refuse(peer, Some(id), "the signal cannot be sent");
        }
    }

    /// Sets the limits of a star that runs. When one fails its disk and its output keep what they had, and what it had is kept
    /// for the next change.
    fn limit(&mut self, id: StarId, limits: &Limits) -> Result<(), String> {
        let star = self.stars.get_mut(&id).filter(|star| star.lives()).ok_or("the star does not run")?;
        let before = star.record.limits.unwrap_or(Limits::UNLIMITED);
        let failed = |error: std::io::Error| format!("cannot make a group for its limits: {}", plain(&error));
        if self.site.hierarchies.complete(&mut star.record.groups, limits, Some(star.record.pid)).map_err(failed)? {
            // The next nursery has to know what to remove.
            star.record.save(&star.folder).map_err(failed)?;
        }
        let limited = star::limit(&star.record, limits);
        // What could be set is set, and is not to be lent as it was before.
        let Limits { cpu, cpu_burst, cpu_borrow, .. } = *limits;
        star.record.limits = Some(Limits { cpu, cpu_burst, cpu_borrow, ..before });
        limited?;
        let Site { disks, stage, .. } = &self.site;
        disks.resize(&star.record, &star.folder, before.disk, limits.disk, stage.workshop())?;
        if let Some(logs) = &mut star.logs {
            logs.pipes.limit(limits.log_rate);
        }
        star.record.limits = Some(*limits);
        if star.has_quota() {
            self.yielding.expect(Instant::now());
        } else {
            // Nobody looks at it any more.
            self.yielding.forget(id);
            let _ = star.record.groups.give_way(false);
        }
        star.record.save(&star.folder).map_err(|error| format!("cannot keep the star's record: {}", plain(&error)))
    }

    fn open_doors(&mut self, peer: u64, id: StarId, token: u64, count: u8) {
        let doors = match self.stars.get(&id) {
            Some(star) if star.lives() && count <= DOORS_MAX => {
                let network = borrowed(&star.network);
                self.site.networks.doors(network, count).map_err(|error| plain(&error))
            }
            Some(star) if star.lives() => Err(format!("at most {DOORS_MAX} doors at a time")),
            _ => Err("the star does not run".to_owned()),
        };
        let (fds, problem) = match doors {
            Ok(fds) => (fds, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        self.peers.send(peer, Message::Doors { star: id, token, problem }, fds, &mut self.poller);
    }

    fn keep_memory(
        &mut self,
        peer: u64,
        id: StarId,
        asked_as: u64,
        keeping: &Keeping,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let star = self.stars.get(&id).filter(|star| matches!(star.phase, Phase::Running));
        let Some(Star { record, folder, .. }) = star else { return Err("the star does not run".to_owned()) };
        let target = Target::of(record, folder, keeping)?;
        self.exec(peer, id, asked_as, Task::Keep(&target), &BTreeMap::new(), fds)
    }

    fn exec(
        &mut self,
        peer: u64,
        id: StarId,
        asked_as: u64,
        task: Task<'_>,
        env: &BTreeMap<String, String>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let streams = exec::Streams::of(fds)?;
        let star = self.stars.get(&id).filter(|star| matches!(star.phase, Phase::Running));
        let Some(Star { record, .. }) = star else { return Err("the star does not run".to_owned()) };
        let Site { filters, landlock, entry, title, .. } = &self.site;
        let errand = exec::Errand {
            record,
            task,
            env,
            streams: &streams,
            filters,
            landlock: *landlock,
            entry: entry.run,
            title: title.as_ref(),
        };
        let running = exec::start(&errand)?;
        let number = self.next_exec;
        self.next_exec += 1;
        let token = self.poller.add(&running.pidfd, Source::ExecEnd(number)).map_err(|error| plain(&error))?;
        self.execs.insert(number, Exec { running, token, peer, asked_as });
        Ok(())
    }

    fn take_exec_end(&mut self, number: u64) {
        let Some(Exec { running, token, peer, asked_as }) = self.execs.remove(&number) else { return };
        self.poller.remove(&running.pidfd, token);
        self.tell(peer, Message::ExecEnded { token: asked_as, result: running.result() });
    }

    fn forget(&mut self, peer: u64, id: StarId) {
        match self.stars.get(&id) {
            None => self.refuse(peer, Some(id), "no such star"),
            Some(star) if !matches!(star.phase, Phase::Ended) => self.refuse(peer, Some(id), "the star still runs"),
            Some(star) => match fs::remove_dir_all(&star.folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let reason = format!("cannot remove `{}`: {}", star.folder.display(), plain(&error));
                    self.refuse(peer, Some(id), &reason);
                }
                _ => {
                    self.leases.forget(id);
                    self.stars.remove(&id);
                }
            },
        }
    }

    fn drain(&mut self, id: StarId, source: LogSource) {
        let Some(Star { logs: Some(logs), .. }) = self.stars.get_mut(&id) else { return };
        if logs.pipes.drain(source, Instant::now()) == Drained::Enough {
            let index = usize::from(source == LogSource::Err);
            if let Some(token) = logs.tokens[index].take() {
                self.poller.remove(logs.pipes.reader(source), token);
                self.resting.push((id, source));
            }
        }
    }

    /// Listens again to logs whose tick is over.
    fn wake_logs(&mut self) {
        let now = Instant::now();
        let mut resting = std::mem::take(&mut self.resting);
        resting.retain(|&(id, source)| {
            let Some(Star { logs: Some(logs), .. }) = self.stars.get_mut(&id) else { return false };
            if !logs.pipes.rested(now) {
                return true;
            }
            let token = self.poller.add(logs.pipes.reader(source), Source::Log(id, source)).ok();
            logs.tokens[usize::from(source == LogSource::Err)] = token;
            false
        });
        self.resting = resting;
    }

    fn shut_down(&mut self) {
        self.stopping = true;
        self.end_check(Some("the nursery is shutting down".to_owned()));
        self.site.abandon_ahead();
        self.stars.values_mut().for_each(Star::kill);
    }
}

impl Star {
    fn report(&self) -> StarReport {
        let Record { star, generation, pid, start_time, .. } = self.record;
        let pid = if matches!(self.phase, Phase::Starting { .. }) { 0 } else { pid };
        StarReport { star, generation, pid, start_time, ended: self.record.ended.clone() }
    }

    fn lives(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Running)
    }

    fn kill(&mut self) {
        if let Some((pidfd, _)) = &self.pidfd {
            star::kill(&self.record, pidfd.as_fd(), &mut self.told);
        }
    }

    /// Keeps how it ended, for every agent still to come; the pipes are of no more use.
    fn conclude(&mut self, cause: ExitCause) {
        self.phase = Phase::Ended;
        self.record.ended = Some(cause);
        Pipes::remove(&self.folder);
        let _ = fs::remove_file(self.folder.join("exit"));
        // On a full disk only a nursery that follows this one would miss it.
        let _ = self.record.save(&self.folder);
    }
}

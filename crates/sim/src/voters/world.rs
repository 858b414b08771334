//! The machines, what is known of them, and what is wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use consensus_sim::executor::{self, Moment, Owner};
use consensus_sim::{Config, Consensus, Role, found};
use model::{NodeId, Problem};
use state::State;

use super::disk::Medium;
use super::history::Deed;
use super::network::Net;
use super::truth::Truth;
use crate::chance::Chance;

/// Tasks that are no machine's.
pub(crate) const WORLD: Owner = Owner(2);
/// The first owner that is a machine while it is on.
const MACHINES: u64 = 100;
/// A process whose disk failed must have ended by then.
const DYING: Duration = Duration::from_secs(1);

/// What a run is a function of, beside the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub seed: u64,
    /// How long things go wrong, in virtual time.
    pub time: Duration,
    /// A protection that is taken away, to see that its absence is found.
    pub bug: Option<Bug>,
    /// Everything that happens is noted, not only what goes wrong.
    pub trace: bool,
}

/// Protections that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A commit is answered for when it was begun, not when the disk has it.
    AnswersBeforeSync,
    /// Votes stay in memory.
    ForgetsVotes,
    /// A leader reads what it has, without asking whether it still leads.
    ReadsWithoutAsking,
    /// Pieces of a snapshot are taken for what they are not.
    TakesSnapshotsUnchecked,
    /// What a power cut left of the last batch is taken for all of it.
    TrustsTails,
}

/// What a run that went well was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// How often a task went on.
    pub polls: u64,
    /// Requests and answers that arrived.
    pub carried: u64,
    pub commands: u64,
    pub writes: u64,
    pub reads: u64,
    /// Writes that nobody was told of.
    pub unknown: u64,
    pub terms: u64,
    /// Changes of who votes.
    pub changes: u64,
    /// Those that a leader left half done and another one finished.
    pub finished: u64,
    pub snapshots: u64,
    /// Batches that a disk had a part of only.
    pub torn: u64,
    pub faults: u64,
    /// Virtual time.
    pub took: Duration,
    /// The longest time from the end of all faults to the next write.
    pub recovered: Duration,
    /// Differs for runs that differ in anything.
    pub hash: u64,
}

impl Report {
    /// Both together.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        Self {
            polls: self.polls + other.polls,
            carried: self.carried + other.carried,
            commands: self.commands + other.commands,
            writes: self.writes + other.writes,
            reads: self.reads + other.reads,
            unknown: self.unknown + other.unknown,
            terms: self.terms + other.terms,
            changes: self.changes + other.changes,
            finished: self.finished + other.finished,
            snapshots: self.snapshots + other.snapshots,
            torn: self.torn + other.torn,
            faults: self.faults + other.faults,
            took: self.took + other.took,
            recovered: self.recovered.max(other.recovered),
            hash: self.hash.rotate_left(1) ^ other.hash,
        }
    }
}

/// What went wrong, and what happened before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub what: String,
    pub trace: Vec<String>,
}

/// Clones are the same world.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub options: Options,
    pub net: Net,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug)]
pub(crate) struct Book {
    pub chance: Chance,
    pub config: Config,
    pub machines: BTreeMap<NodeId, Machine>,
    pub truth: Truth,
    pub deeds: Vec<Deed>,
    /// Ticks at every beginning and end of what clients do.
    pub clock: u64,
    /// The last value that was written to any register.
    pub value: u64,
    pub report: Report,
    /// Who votes is being changed, or may be.
    pub changing: bool,
    /// A voter's disk was lost for good: once a run at most, what the others have must do.
    pub lost: bool,
    /// Nothing goes wrong any more, and nobody begins anything.
    pub is_over: bool,
    pub done: bool,
    next_owner: u64,
    began: Moment,
    wrong: Option<String>,
    trace: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub medium: Medium,
    pub running: Option<Running>,
    /// Its place was given away: it goes soon.
    pub is_leaving: bool,
    /// It never comes back.
    pub gone: bool,
    /// How often its disk was told to fail and nobody was told that it did.
    pub fails: u32,
}

#[derive(Debug)]
pub(crate) struct Running {
    pub owner: Owner,
    /// Once it has read its disk.
    pub consensus: Option<Consensus>,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let mut chance = Chance::new(options.seed);
        let net = Net::new(chance.number());
        let mut config = Config::new(NodeId(0));
        config.catch_up_within = Duration::from_secs(6);
        config.compact_bytes = 512 << chance.below(5);
        config.keep_bytes = chance.below(4) * 512;
        config.piece_bytes = 4_096;
        let book = Book {
            chance,
            config,
            machines: BTreeMap::new(),
            truth: Truth::default(),
            deeds: Vec::new(),
            clock: 0,
            value: 0,
            report: Report::default(),
            changing: false,
            lost: false,
            is_over: false,
            done: false,
            next_owner: MACHINES,
            began: executor::now(),
            wrong: None,
            trace: Vec::new(),
        };
        Self { options, net, book: Arc::new(Mutex::new(book)) }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic while it is held")
    }

    /// Notes what happens.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        self.book().note(what);
    }

    /// What only a trace is interested in.
    pub(crate) fn detail(&self, what: impl FnOnce() -> String) {
        if self.options.trace {
            self.note(what);
        }
    }

    /// Something is that must not be.
    pub(crate) fn wrong(&self, what: String) {
        self.book().wrong(what);
    }

    pub(crate) fn take_wrong(&self) -> Option<Failure> {
        let in_net = self.net.take_wrong();
        let mut book = self.book();
        let what = in_net.or_else(|| book.wrong.take())?;
        Some(Failure { what, trace: std::mem::take(&mut book.trace) })
    }

    /// A new machine, off, with an empty disk.
    pub(crate) fn add_machine(&self) -> NodeId {
        let mut book = self.book();
        let node = NodeId(book.machines.len() as u64 + 1);
        let medium = Medium::new(book.chance.number(), self.options.bug == Some(Bug::TrustsTails));
        book.machines.insert(node, Machine { medium, running: None, is_leaving: false, gone: false, fails: 0 });
        node
    }

    /// Begins the log on this machine.
    pub(crate) fn found(&self, node: NodeId) {
        let medium = self.book().machines[&node].medium.clone();
        if let Err(problem) = found(&mut medium.open(), node, &State::default()) {
            self.wrong(format!("{node} cannot begin a log: {problem}"));
        }
    }

    /// Starts the process on a machine where there is none and one can be.
    pub(crate) fn start(&self, node: NodeId) {
        let (owner, disk, config) = {
            let mut book = self.book();
            let owner = Owner(book.next_owner);
            let config = Config { me: node, ..book.config.clone() };
            let Some(machine) = book.machines.get_mut(&node).filter(|it| it.running.is_none() && !it.gone) else {
                return;
            };
            machine.running = Some(Running { owner, consensus: None });
            let disk = machine.medium.open();
            book.next_owner += 1;
            (owner, disk, config)
        };
        self.note(|| format!("{node} starts"));
        let this = self.clone();
        executor::spawn(owner, async move {
            let told = this.clone();
            let on_fatal = move |problem: &Problem| told.is_dying(node, owner, problem);
            let peers = Arc::new(this.net.wire(node));
            match consensus_sim::start(config, Box::new(disk), peers, Box::new(on_fatal)).await {
                Ok((consensus, applied)) => {
                    if let Some(running) = this.book().running(node, owner) {
                        running.consensus = Some(consensus.clone());
                    }
                    // What it told before it was killed counts, so whoever listens is not killed with it.
                    executor::spawn(WORLD, this.clone().listen(node, applied));
                    executor::spawn(WORLD, this.clone().look(node, consensus.watch()));
                    this.net.connect(node, owner, consensus);
                }
                Err(problem) => this.wrong(format!("{node} cannot start: {problem}")),
            }
        });
    }

    /// The process is gone, the machine stays on.
    pub(crate) fn kill(&self, node: NodeId) {
        if self.take_down(node) {
            let medium = self.book().machines[&node].medium.clone();
            medium.kill_user();
            self.note(|| format!("{node} is killed"));
        }
    }

    pub(crate) fn cut_power(&self, node: NodeId) {
        if self.take_down(node) {
            let medium = self.book().machines[&node].medium.clone();
            medium.cut_power();
            self.note(|| format!("{node} loses power"));
        }
    }

    /// Whether there was one.
    fn take_down(&self, node: NodeId) -> bool {
        let running = self.book().machines.get_mut(&node).and_then(|machine| machine.running.take());
        let Some(running) = running else { return false };
        self.net.disconnect(node);
        executor::kill(running.owner);
        true
    }

    /// It never comes back.
    pub(crate) fn lose(&self, node: NodeId) {
        self.cut_power(node);
        self.note(|| format!("{node} is gone for good"));
        if let Some(machine) = self.book().machines.get_mut(&node) {
            (machine.gone, machine.is_leaving) = (true, true);
        }
    }

    /// Starts it again after a while, as whatever supervises it would.
    pub(crate) fn start_later(&self, node: NodeId, most: Duration) {
        let wait = self.book().chance.at_most(most);
        let this = self.clone();
        executor::spawn(WORLD, async move {
            executor::sleep(wait).await;
            this.start(node);
        });
    }

    /// Its disk failed: the process ends within its time, whatever it does until then.
    fn is_dying(&self, node: NodeId, owner: Owner, problem: &Problem) {
        let wait = {
            let mut book = self.book();
            let machine = book.machine(node);
            let asked = machine.fails > 0;
            machine.fails = machine.fails.saturating_sub(1);
            if !asked {
                book.wrong(format!("{node} ends by itself: {problem}"));
            }
            book.note(|| format!("{node} is dying: {problem}"));
            book.chance.at_most(DYING)
        };
        let this = self.clone();
        executor::spawn(WORLD, async move {
            executor::sleep(wait).await;
            if this.book().running(node, owner).is_some() {
                this.kill(node);
                this.start_later(node, Duration::from_secs(3));
            }
        });
    }

    /// All processes that have read their disks.
    pub(crate) fn voters(&self) -> Vec<(NodeId, Owner, Consensus)> {
        let book = self.book();
        let running = book.machines.iter().filter_map(|(node, machine)| Some((*node, machine.running.as_ref()?)));
        running.filter_map(|(node, it)| Some((node, it.owner, it.consensus.clone()?))).collect()
    }

    /// One that says it leads; of several the one in the newest term.
    pub(crate) fn leader(&self) -> Option<(NodeId, Owner, Consensus)> {
        let leads = |(node, owner, consensus): (NodeId, Owner, Consensus)| {
            let status = consensus.status();
            (status.role == Role::Leader).then_some((status.term, (node, owner, consensus)))
        };
        self.voters().into_iter().filter_map(leads).max_by_key(|(term, _)| *term).map(|(_, it)| it)
    }

    /// Everything is taken down, so that nothing holds anything any more.
    pub(crate) fn end(&self) {
        let nodes: Vec<NodeId> = self.book().machines.keys().copied().collect();
        for node in nodes {
            self.take_down(node);
        }
    }
}

impl Book {
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let at = (executor::now() - self.began).as_secs_f64();
        self.trace.push(format!("{at:9.4}  {}", what()));
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.note(|| what.clone());
        self.wrong.get_or_insert(what);
    }

    /// One that there is.
    pub(crate) fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("machines stay known")
    }

    pub(crate) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(crate) fn running(&mut self, node: NodeId, owner: Owner) -> Option<&mut Running> {
        self.machines.get_mut(&node)?.running.as_mut().filter(|running| running.owner == owner)
    }

    pub(crate) fn took(&self) -> Duration {
        executor::now() - self.began
    }
}

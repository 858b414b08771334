//! What comes into a node and what goes out of it: closed lists, each entry with when and why.

use std::net::SocketAddr;
use std::time::Duration;

use model::{
    AppKey, AppSpec, Balance, Bytes, Duty, EndpointSet, Entry, ExitCause, Limits, LimitsChange, Name, NamespaceChange,
    NodeId, Once, Overcommit, ProbeKind, ProbeRole, Problem, RequestId, RolloutTurn, SecretChange, SecretKey,
    ServiceKey, StarId, StarTemplate, Taint, VolumeKey,
};
use rollout::Answers;
use state::{Author, Command, Deed};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks for a change; answered once by `Effect::Reply`.
    Request {
        id: RequestId,
        request: Request,
    },
    /// A command is durable: it holds from here on. Commands come in the order in which they were proposed.
    Committed {
        index: u64,
        command: Command,
    },
    /// A proposal was not written and never will be.
    ProposalFailed {
        proposal: u64,
        problem: Problem,
    },
    /// The nursery answers: what runs there, and what ended without anybody having been told.
    NurseryUp {
        running: Vec<RunningStar>,
        ended: Vec<(StarId, ExitCause)>,
    },
    /// The nursery is out of reach. Its stars run on.
    NurseryDown,
    StarStarted {
        star: StarId,
        pid: u32,
        start_time: u64,
    },
    StarStartFailed {
        star: StarId,
        reason: String,
    },
    StarExited {
        star: StarId,
        cause: ExitCause,
    },
    /// The answer to one `Effect::Limit`: the limits hold, or why they do not.
    Limited {
        star: StarId,
        problem: Option<String>,
    },
    /// The answer to one `Effect::Freeze`: it holds, or why not.
    Frozen {
        star: StarId,
        problem: Option<String>,
    },
    /// The answer to one `Effect::Hook`, however the command ended.
    HookEnded {
        star: StarId,
    },
    /// The answer to one `Effect::Measure`: its working set, where this machine measures it.
    Measured {
        star: StarId,
        used: Option<Bytes>,
    },
    /// The answer to `Effect::LookAtMemory`, where this machine can tell.
    MemoryLeft {
        left: Bytes,
    },
    /// The answer to `Effect::Weigh`: the working set of each star that could be measured.
    Weighed {
        used: Vec<(StarId, Bytes)>,
    },
    /// The answer to one `Effect::LookAtAnswers`: what each star of the service made of requests, as far as the machines that were asked
    /// have answered.
    Answered {
        service: ServiceKey,
        answers: Vec<(StarId, Answers)>,
    },
    /// The answer to one `Effect::Probe`.
    Probed {
        star: StarId,
        role: ProbeRole,
        outcome: Result<(), String>,
    },
    /// Nothing is in flight at a star that was drained.
    Drained {
        star: StarId,
    },
    /// The answer to `Effect::Listen`.
    Listening {
        service: ServiceKey,
        result: Result<SocketAddr, Problem>,
    },
    /// This node is the one that plans, or is it no more. Told `true` when everything written before has been told, and
    /// `false` before it is told `true` again. A machine that is alone is never told: it always is.
    Leads {
        leads: bool,
    },
    /// A machine reported to this node, which leads.
    Heard {
        node: NodeId,
    },
    /// A leader that a majority follows has heard from this machine: for so long from now on none of its stars runs elsewhere.
    Leased {
        length: Duration,
    },
    /// Membership sees a machine, or does not. A hint.
    Seems {
        node: NodeId,
        alive: bool,
    },
    /// Every star here is to end in good order, and none is to come: the agent ends, and its stars with it. What the log
    /// wants stays, for the next agent.
    Rest,
    /// The agent is to end; stars run on.
    Stop,
    /// Time passed: `next_deadline` was reached.
    Tick,
}

/// A change somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    PutApp {
        spec: AppSpec,
        base: Option<u64>,
    },
    RemoveApp {
        app: AppKey,
    },
    Scale {
        service: ServiceKey,
        instances: u32,
    },
    /// Answered when every running star has the limits, or one cannot have them.
    Limit {
        service: ServiceKey,
        change: Box<LimitsChange>,
    },
    Restart {
        service: ServiceKey,
    },
    /// Begin a run of a job.
    RunJob {
        service: ServiceKey,
    },
    TurnRollout {
        service: ServiceKey,
        turn: RolloutTurn,
    },
    /// Make it what it was: in the last good version, where none is named.
    Rollback {
        service: ServiceKey,
        version: Option<u64>,
    },
    /// Let its stars stand still where they are.
    Pause {
        service: ServiceKey,
    },
    /// Let them go on.
    Resume {
        service: ServiceKey,
    },
    StopService {
        service: ServiceKey,
    },
    StartService {
        service: ServiceKey,
    },
    /// Take a service out of its app.
    RemoveService {
        service: ServiceKey,
    },
    /// End one star by its number, and let none run in its place.
    StopStar {
        service: ServiceKey,
        ordinal: u32,
    },
    /// Let one run there again.
    StartStar {
        service: ServiceKey,
        ordinal: u32,
    },
    /// Replace one star by another of its name.
    RestartStar {
        service: ServiceKey,
        ordinal: u32,
    },
    /// Have another come for one star on another machine.
    MoveStar {
        service: ServiceKey,
        ordinal: u32,
    },
    /// Set a secret of a constellation, sealed already.
    SetSecret {
        secret: SecretKey,
        sealed: Vec<u8>,
    },
    /// Take a secret of a constellation away.
    DeleteSecret {
        secret: SecretKey,
    },
    /// Let a volume that nobody has lie nowhere.
    DeleteVolume {
        volume: VolumeKey,
    },
    /// Note what became of a secret.
    NoteSecret {
        secret: SecretKey,
        change: SecretChange,
    },
    /// Note that a user of the host was given secrets: their value, or a way into a star that has them.
    NoteRead {
        secrets: Vec<SecretKey>,
        uid: u32,
        star: Option<(ServiceKey, String)>,
    },
    /// Say when a namespace ends and what it may have; make it with that when it is `new`.
    SetNamespace {
        namespace: Name,
        change: NamespaceChange,
        new: bool,
    },
    /// Take a namespace away with its apps and secrets.
    DeleteNamespace {
        namespace: Name,
        force: bool,
    },
    /// Say whether a machine gets stars.
    SetDuty {
        node: NodeId,
        duty: Duty,
    },
    /// Say something of a machine that services have to put up with, or take it back.
    SetTaint {
        node: NodeId,
        name: String,
        taint: Option<Taint>,
    },
    /// Say how often what a machine has may be kept for stars, or of all of which nothing of their own is said; or take it back.
    SetOvercommit {
        node: Option<NodeId>,
        overcommit: Option<Overcommit>,
    },
    /// Take a machine out for good. One that is there is refused, unless it is forced.
    RemoveNode {
        node: NodeId,
        force: bool,
    },
    /// A change that happens once, however often it is asked for under its key, at whichever machine.
    Once {
        once: Once,
        request: Box<Request>,
    },
    /// Any of these, with who asks: it is recorded together with the change.
    By {
        author: Author,
        request: Box<Request>,
    },
    /// Record what is no change of the state.
    Note {
        author: Author,
        deed: Deed,
    },
}

/// The change holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The index of its command.
    pub index: u64,
}

/// A star as the nursery knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningStar {
    pub star: StarId,
    pub generation: u64,
    /// 0 while it is being started.
    pub pid: u32,
    pub start_time: u64,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "effects are made one by one and performed at once; a box would cost more"
)]
pub enum Effect {
    /// Write a command to the log; answered by `Committed` or `ProposalFailed`.
    Propose {
        proposal: u64,
        command: Command,
    },
    Reply {
        id: RequestId,
        result: Result<Reply, Problem>,
    },
    /// A namespace is gone, and with it what a machine that is alone keeps of it beside the log.
    NamespaceRemoved {
        namespace: Name,
    },
    /// Start a star; answered by `StarStarted` or `StarStartFailed`.
    Start {
        order: StartOrder,
    },
    Signal {
        star: StarId,
        signal: i32,
    },
    /// End everything in the star; answered by `StarExited`.
    Kill {
        star: StarId,
    },
    /// Drop what is kept of an ended star.
    Forget {
        star: StarId,
    },
    /// Let these stars run for so long, and end those that are not named again by then; before any of them is started.
    Lease {
        stars: Vec<StarId>,
        length: Duration,
    },
    /// Change what a star may use; answered by `Limited`.
    Limit {
        star: StarId,
        limits: Limits,
    },
    /// Halt everything in a star, or let it go on; answered by `Frozen`.
    Freeze {
        star: StarId,
        frozen: bool,
    },
    /// Run a command within a star to its end; answered by `HookEnded`.
    Hook {
        star: StarId,
        command: Vec<String>,
    },
    /// Look how much memory a star uses; answered by `Measured`.
    Measure {
        star: StarId,
    },
    /// Look how much memory programs can still have without anything being swapped; answered by `MemoryLeft`.
    LookAtMemory,
    /// Look how much memory each of these uses; answered by `Weighed`.
    Weigh {
        stars: Vec<StarId>,
    },
    /// Ask all machines what stars of the service made of requests that came to them; answered by `Answered`, always.
    LookAtAnswers {
        service: ServiceKey,
    },
    /// Look once whether a star answers; answered by `Probed`.
    Probe {
        star: StarId,
        role: ProbeRole,
        /// Where it listens, for the kinds that ask there.
        port: Option<u16>,
        host_network: bool,
        kind: ProbeKind,
        timeout: Duration,
    },
    /// Open a service's entry point, in place of the one it has; answered by `Listening`.
    Listen {
        service: ServiceKey,
        entry: Entry,
    },
    /// Close it gracefully.
    Unlisten {
        service: ServiceKey,
    },
    /// Where requests of a service may go from now on.
    Publish {
        service: ServiceKey,
        set: EndpointSet,
        balance: Balance,
    },
    /// Send a star no new requests; answered by `Drained` once nothing is in flight.
    Drain {
        star: StarId,
        service: ServiceKey,
    },
}

/// A star to start: nothing is left to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartOrder {
    pub star: StarId,
    pub generation: u64,
    pub service: ServiceKey,
    /// `hello-1`.
    pub name: String,
    pub template: StarTemplate,
    pub port: Option<u16>,
}

//! Everything that can be written to the log. A released variant is never changed, only joined by new ones.

use model::{
    AppKey, AppSpec, ContentHash, Duty, Exit, JoinTicket, LimitsChange, Name, NamespaceChange, NodeFacts, NodeId,
    NodeRole, Once, Overcommit, RolloutTurn, SecretChange, SecretKey, Serial, ServiceKey, StarId, StarPhase, Taint,
    VolumeKey, WallTime,
};
use serde::{Deserialize, Serialize};

use crate::access::Grant;
use crate::audit::{Author, Deed};
use crate::rollouts::Settled;
use crate::security::{AuthorityRecord, CertificateRecord, GossipKey};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes an app what the spec says. Refused when `base` is given and is not the app's version (0: the app must not
    /// exist), or when a service of that name belongs to another app.
    PutApp { spec: AppSpec, base: Option<u64>, wall: WallTime },
    /// Takes an app and its services away; their stars are told to stop.
    RemoveApp { app: AppKey, wall: WallTime },
    /// Changes how many stars a service keeps.
    Scale { service: ServiceKey, instances: u32, wall: WallTime },
    /// Changes what the stars of a service may use, while they run.
    Limit { service: ServiceKey, change: Box<LimitsChange>, wall: WallTime },
    /// Replaces the stars of a service one after another, as after a change.
    Restart { service: ServiceKey, wall: WallTime },
    /// Keeps the service known but lets no star of it run.
    Stop { service: ServiceKey, wall: WallTime },
    /// Lets the stars of a stopped service run again.
    Start { service: ServiceKey, wall: WallTime },
    /// Lets the stars of a service stand still where they are.
    Pause { service: ServiceKey, wall: WallTime },
    /// Lets the stars of a paused service go on.
    Resume { service: ServiceKey, wall: WallTime },
    /// Brings stars into being. Each is checked again; those that no longer fit are refused, the others stand.
    Assign { stars: Vec<Assignment>, wall: WallTime },
    /// What became of stars. A transition of an unknown star or back to an earlier phase changes nothing.
    Transitions { changes: Vec<Transition>, wall: WallTime },
    /// Drops ended stars and what is known of them.
    Forget { stars: Vec<StarId> },
    /// Ends the star of this number, and lets none run in its place.
    StopStar { service: ServiceKey, ordinal: u32, wall: WallTime },
    /// Lets one run there again.
    StartStar { service: ServiceKey, ordinal: u32, wall: WallTime },
    /// Ends the star of this number; another of the same name follows.
    RestartStar { service: ServiceKey, ordinal: u32, wall: WallTime },
    /// Has another star come on another machine for the one of this number, which then goes.
    MoveStar { service: ServiceKey, ordinal: u32, wall: WallTime },
    /// Stars that were to move stay where they are: no other machine has room.
    EndMove { stars: Vec<StarId>, wall: WallTime },
    /// Takes a service out of its app; with its last one the app is gone.
    RemoveService { service: ServiceKey, wall: WallTime },
    /// Notes what became of a secret. Its value is kept elsewhere, sealed, and never comes here.
    SecretChanged { secret: SecretKey, change: SecretChange, wall: WallTime },
    /// Notes that a user of the host was given secrets: a value, or a way into a star (by its name) that has them.
    SecretsRead { secrets: Vec<SecretKey>, uid: u32, star: Option<(ServiceKey, String)>, wall: WallTime },
    /// Makes a machine that was alone the first node of a constellation. What it runs stays as it is.
    Found { cluster: Name, name: Name, address: String, facts: Box<NodeFacts>, wall: WallTime },
    /// Takes a machine in. Its id is the index of this command, so it is never given twice. Refused when a node of that
    /// name is there, or when the invitation `ticket` does not admit it; where no authority is, none is asked for.
    AdmitNode {
        name: Name,
        role: NodeRole,
        address: String,
        facts: Box<NodeFacts>,
        wall: WallTime,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<ContentHash>,
    },
    /// What a node says of itself has changed.
    DescribeNode { node: NodeId, address: String, facts: Box<NodeFacts>, wall: WallTime },
    /// Gives a node up: its stars count as ended from here on.
    LoseNode { node: NodeId, wall: WallTime },
    /// A node that was given up is there again.
    WelcomeNode { node: NodeId, wall: WallTime },
    /// Takes a node out for good.
    RemoveNode { node: NodeId, wall: WallTime },
    /// Tells stars to finish what they are at and to go.
    Retire { stars: Vec<StarId>, wall: WallTime },
    /// Says whether a node gets stars.
    SetDuty { node: NodeId, duty: Duty, wall: WallTime },
    /// Says which authorities are believed, the one that issues first. Refused when they were set since `base`, when one is to
    /// issue that was not believed before, and when one is to go that nodes need.
    SetAuthorities { authorities: Vec<AuthorityRecord>, lifetime_days: u16, base: u64, wall: WallTime },
    /// Invites machines.
    AddTicket { ticket: JoinTicket, wall: WallTime },
    /// Takes an invitation back.
    RemoveTicket { hash: ContentHash, wall: WallTime },
    /// A node is to get this certificate, as it showed `by`, or is new. Refused when it left, or that one was revoked.
    NoteCertificate { node: NodeId, certificate: CertificateRecord, by: Option<Serial>, wall: WallTime },
    /// A node was seen with a certificate.
    UseCertificate { node: NodeId, serial: Serial, wall: WallTime },
    /// Shuts a node out: whatever it was given is believed no more, and it gets nothing new.
    RevokeCertificates { node: NodeId, wall: WallTime },
    /// Sets a secret of a constellation, sealed under keys of its controllers.
    SetSecret {
        secret: SecretKey,
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
        wall: WallTime,
    },
    /// Takes a secret of a constellation away. Refused while a service names it.
    DeleteSecret { secret: SecretKey, wall: WallTime },
    /// A volume lies nowhere from now on. Refused while a service names it or a star that has not ended has it.
    DeleteVolume { volume: VolumeKey, wall: WallTime },
    /// A change that is applied once, however often it is written under its key. `answer` is kept with it, for who asks again: sealed
    /// where it tells a secret.
    Keyed {
        once: Once,
        command: Box<Command>,
        wall: WallTime,
        #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
        answer: Option<Vec<u8>>,
    },
    /// Says what gossip is sealed with, the key that seals first. Refused when that was set since `base`, and when some would not
    /// understand others on the way there.
    SetGossipKeys { keys: Vec<GossipKey>, base: u64, wall: WallTime },
    /// Lets somebody use the constellation from outside. Refused when there is a grant of that name that is good.
    AddGrant { name: Name, grant: Box<Grant>, wall: WallTime },
    /// Ends a grant.
    RemoveGrant { name: Name, wall: WallTime },
    /// Somebody asks for a change: applied and recorded as one. Refused for what nobody asks for.
    By { author: Author, command: Box<Command>, wall: WallTime },
    /// Somebody did, or was denied, what is no change of the state.
    Note { author: Author, deed: Deed, wall: WallTime },
    /// How a roll-out ended, or that what it tried is believed.
    SettleRollout { service: ServiceKey, revision: u64, settled: Settled, wall: WallTime },
    /// Somebody has a say in a roll-out.
    TurnRollout { service: ServiceKey, turn: RolloutTurn, wall: WallTime },
    /// Makes a service what an earlier version of it was: the last good one where none is named.
    Rollback { service: ServiceKey, version: Option<u64>, wall: WallTime },
    /// Begins a run of a job: for that moment of its schedule, or because somebody asks.
    BeginRun {
        service: ServiceKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<WallTime>,
        wall: WallTime,
    },
    /// An agent was started that is a node which runs already, from a copy of its data folder. `address`: where.
    NoteTwin { node: NodeId, address: String, wall: WallTime },
    /// This node leads from here on.
    NoteLeader { node: NodeId, wall: WallTime },
    /// Says something of a namespace: when it ends, what it may have. With `new` it must not be there yet, without it must be. A quota
    /// below what is used takes nothing away; nothing grows beyond it.
    SetNamespace { namespace: Name, change: NamespaceChange, new: bool, wall: WallTime },
    /// Takes a namespace away with its apps and secrets; its volumes stay. Refused when there are any, unless it is forced.
    DeleteNamespace { namespace: Name, force: bool, wall: WallTime },
    /// Warns that a namespace ends soon. Refused when it does not end at `at` any more.
    WarnNamespace { namespace: Name, at: WallTime, wall: WallTime },
    /// Takes away a namespace whose time is over, as `DeleteNamespace` with force. Refused when it does not end at `at` any more.
    EndNamespace { namespace: Name, at: WallTime, wall: WallTime },
    /// Says something of a machine that services have to put up with; `None` takes it back.
    SetTaint { node: NodeId, name: String, taint: Option<Taint>, wall: WallTime },
    /// Says how often what a machine has may be kept for stars, or of all of which nothing of their own is said; `None` takes it back.
    SetOvercommit {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overcommit: Option<Overcommit>,
        wall: WallTime,
    },
    /// Tells stars to go so that a star of `service` has room. Refused for each that need not give way to it.
    Preempt { service: ServiceKey, stars: Vec<StarId>, wall: WallTime },
    /// Begins or ends a reservation whose time has come. Refused when that is another by now.
    TurnHold { service: ServiceKey, wall: WallTime },
}

impl Command {
    /// What it is without its key, and without who asks for it.
    pub fn bare(&self) -> &Self {
        match self {
            Self::Keyed { command, .. } | Self::By { command, .. } => command.bare(),
            other => other,
        }
    }

    /// Made by the node that leads, from the whole state: written by that node alone, and only while it leads. Who leads after
    /// it may have planned otherwise.
    pub fn is_plan(&self) -> bool {
        matches!(
            self.bare(),
            Self::Assign { .. }
                | Self::Retire { .. }
                | Self::Preempt { .. }
                | Self::EndMove { .. }
                | Self::Forget { .. }
                | Self::LoseNode { .. }
                | Self::WelcomeNode { .. }
                | Self::NoteLeader { .. }
                | Self::SettleRollout { .. }
                | Self::BeginRun { slot: Some(_), .. }
                | Self::WarnNamespace { .. }
                | Self::EndNamespace { .. }
                | Self::TurnHold { .. }
        )
    }
}

/// One star to be. Nothing is left to choose; its generation is the index of the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub star: StarId,
    pub service: ServiceKey,
    /// The revision it was planned for: the service's own, or the one before while that may come back. Refused when the service has
    /// moved on.
    pub revision: u64,
    /// Its number among the stars of its service, from 1: `hello-1`.
    pub ordinal: u32,
    pub node: NodeId,
    /// Where it is to listen.
    pub port: Option<u16>,
    /// The place of a reservation that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<StarId>,
}

/// One step of a star's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    pub star: StarId,
    pub phase: StarPhase,
    /// Pid and start time of its first process, once it has one.
    pub process: Option<(u32, u64)>,
    /// With `Ended`: how.
    pub exit: Option<Exit>,
}

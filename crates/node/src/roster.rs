//! The machines of the constellation as people and programs are shown them, and whether one may be taken out.

use model::machine::check_given_up;
use model::{
    Code, Duty, Name, NodeFacts, NodeId, NodeRole, Problem, Standing, StarPhase, Taints, VolumeThere, WallTime,
};
use serde::{Deserialize, Serialize};
use state::{NodeRecord, StarRecord};

use crate::node::Node;

/// How a machine seems to be, by what the log says of it and what membership sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Alive,
    /// The log takes it for up, and nothing was heard of it since the agent that was asked began.
    Unknown,
    /// It does not answer; it gets no requests, and keeps its stars for now.
    Suspect,
    /// Given up: its stars run elsewhere.
    Dead,
    /// It left, or was removed.
    Left,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Unknown => "unknown",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        })
    }
}

/// A machine of the constellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MachineView {
    pub id: NodeId,
    pub name: Name,
    pub role: NodeRole,
    pub health: Health,
    pub duty: Duty,
    /// Where other nodes reach it.
    pub address: String,
    pub facts: NodeFacts,
    #[serde(default, skip_serializing_if = "Taints::is_empty")]
    pub taints: Taints,
    pub admitted: WallTime,
    /// When it came to be up, lost or gone.
    pub since: WallTime,
    /// Stars on it that have not ended.
    pub stars: u64,
    pub ready: u64,
    /// Memory its stars may use at most, together, in bytes; those without a limit are not in it.
    pub memory_limits: u64,
    /// Volumes that lie on it: their stars run there and nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<model::VolumeKey>,
    /// The same, with the services that have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_there: Vec<VolumeThere>,
}

/// The place of this machine in its constellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OwnPlace {
    pub cluster: Name,
    pub name: Name,
    pub role: NodeRole,
    pub duty: Duty,
    /// Machines that are of it, and how many of them are alive.
    pub nodes: u64,
    pub alive: u64,
}

impl Node {
    /// Every machine that is or was of the constellation; none when this one is alone.
    pub fn machine_views(&self) -> Vec<MachineView> {
        let mut there = self.state.volumes_by_node();
        let view =
            |(id, record): (&NodeId, &NodeRecord)| self.machine(*id, record, there.remove(id).unwrap_or_default());
        let mut views: Vec<MachineView> = self.state.nodes.iter().map(view).collect();
        views.sort_by(|a, b| (a.health == Health::Left, &a.name, a.id).cmp(&(b.health == Health::Left, &b.name, b.id)));
        views
    }

    fn machine(&self, id: NodeId, record: &NodeRecord, volumes_there: Vec<VolumeThere>) -> MachineView {
        let there = || self.state.stars.on_node(id).filter(|star| star.phase != StarPhase::Ended);
        let limit = |star: &StarRecord| star.template.limits.memory.map_or(0, |memory| memory.0);
        MachineView {
            id,
            name: record.name.clone(),
            role: record.role,
            health: self.health(id, record),
            duty: record.duty,
            address: record.address.clone(),
            facts: record.facts.clone(),
            taints: record.taints.clone(),
            admitted: record.admitted,
            since: record.since,
            stars: there().count() as u64,
            ready: there().filter(|star| star.phase == StarPhase::Ready).count() as u64,
            memory_limits: there().fold(0, |sum, star| sum.saturating_add(limit(star))),
            volumes: volumes_there.iter().map(|there| there.volume.clone()).collect(),
            volumes_there,
        }
    }

    /// Whether a machine is one of the constellation, or this one.
    pub fn is_of_it(&self, id: NodeId) -> bool {
        id == self.config.node || self.state.nodes.get(&id).is_some_and(|record| record.standing != Standing::Left)
    }

    fn health(&self, id: NodeId, record: &NodeRecord) -> Health {
        match record.standing {
            Standing::Left => Health::Left,
            Standing::Lost => Health::Dead,
            Standing::Up if !self.is_known(id) => Health::Unknown,
            Standing::Up if self.is_reachable(id) => Health::Alive,
            Standing::Up => Health::Suspect,
        }
    }

    /// `None` on a machine that is alone.
    pub fn own_place(&self) -> Option<OwnPlace> {
        let cluster = self.state.cluster.clone()?;
        let record = self.state.nodes.get(&self.config.node)?;
        let there = || self.state.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
        Some(OwnPlace {
            cluster,
            name: record.name.clone(),
            role: record.role,
            duty: record.duty,
            nodes: there().count() as u64,
            alive: there().filter(|(id, record)| self.health(**id, record) == Health::Alive).count() as u64,
        })
    }

    /// What a machine is called; nothing when this one is alone.
    pub fn name_of(&self, node: NodeId) -> Option<Name> {
        self.state.nodes.get(&node).map(|record| record.name.clone())
    }

    /// Refuses what is said of machines where there is no constellation.
    pub(crate) fn check_cluster(&self) -> Result<(), Problem> {
        match self.state.cluster {
            Some(_) => Ok(()),
            None => Err(alone()),
        }
    }

    /// Whether a machine may be taken out by others: one that is there takes itself out, in good order, and what lies on
    /// one that is gone is not given up unasked.
    pub(crate) fn check_removal(&self, node: NodeId, force: bool) -> Result<(), Problem> {
        self.check_cluster()?;
        // One that is not known is refused when the command is applied.
        let Some(record) = self.state.nodes.get(&node) else { return Ok(()) };
        let (health, name) = (self.health(node, record), &record.name);
        let refused = |message: String, help: String| Err(Problem::new(Code::Conflict, message).help(help));
        match health {
            _ if force => Ok(()),
            Health::Left => Ok(()),
            Health::Dead => {
                let help = format!(
                    "switch `{name}` on again to keep what lies there, or give it up with `rads c remove {name} --force`: \
                     whoever names one then begins with an empty one elsewhere"
                );
                check_given_up(name, &self.state.volumes_on(node), help)
            }
            Health::Alive | Health::Suspect => refused(
                format!("node `{name}` is {health}"),
                format!("`rads c leave` on `{name}` takes it out in good order; `--force` takes it out as it is"),
            ),
            Health::Unknown => refused(
                format!("node `{name}` was not heard of yet"),
                "if it is gone, a leader gives it up within ten seconds: try again then; `--force` takes it out as it is"
                    .to_owned(),
            ),
        }
    }
}

/// What whoever asks about machines is told where there is only one.
pub fn alone() -> Problem {
    Problem::new(Code::Conflict, "this machine is in no constellation")
        .help("`rads c init --cluster NAME` founds one, `rads c join HOST:PORT` joins one")
}

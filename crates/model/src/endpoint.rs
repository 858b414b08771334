//! Where the ready stars of a service are: what the control side publishes and the data side reads.

use std::collections::BTreeSet;

use crate::id::{NodeId, StarId};

/// One star that may be sent requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    pub star: StarId,
    /// Where it runs.
    pub node: NodeId,
    /// The port inside the star's network namespace (or the host's, for `Network::Host`).
    pub port: u16,
}

/// The ready stars of one service, in the order of their ids. Replaced as a whole, never edited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSet {
    /// Grows with every publication, so that a reader can tell old from new.
    pub generation: u64,
    pub endpoints: Vec<Endpoint>,
    /// Those of a version that is not believed yet: they are given their share of requests wherever these come in.
    pub on_trial: BTreeSet<StarId>,
}

impl EndpointSet {
    /// Whether it says the same, be it older or newer.
    pub fn names_as(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints && self.on_trial == other.on_trial
    }
}

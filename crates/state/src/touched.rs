//! Which parts of the state a command touched, by keys that read like paths: what whoever watches the state is told.
//!
//! `apps/NAMESPACE/APP`, `services/NAMESPACE/SERVICE`, `stars/NAMESPACE/SERVICE/STAR`, `volumes/NAMESPACE/VOLUME`,
//! `secrets/NAMESPACE/SECRET`, `namespaces/NAMESPACE`, `nodes/NODE`, and `security` for tokens, certificates and authorities together. Nothing that changed is
//! left out; what is named may be as it was. The events that people read, and the keys of changes, are not parts of it.

use std::collections::BTreeSet;
use std::fmt;

use model::{AppKey, Name, NodeId, SecretKey, ServiceKey, StarId, StarPhase, VolumeKey};

use crate::apply::Change;
use crate::record::State;

/// A part of the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    App(AppKey),
    Service(ServiceKey),
    Star(ServiceKey, StarId),
    Volume(VolumeKey),
    Secret(SecretKey),
    Namespace(Name),
    Node(NodeId),
    Security,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(app) => write!(f, "apps/{}/{}", app.namespace, app.name),
            Self::Service(service) => write!(f, "services/{}/{}", service.namespace, service.name),
            Self::Star(service, star) => write!(f, "stars/{}/{}/{star}", service.namespace, service.name),
            Self::Volume(volume) => write!(f, "volumes/{}/{}", volume.namespace, volume.name),
            Self::Secret(secret) => write!(f, "secrets/{}/{}", secret.namespace, secret.name),
            Self::Namespace(name) => write!(f, "namespaces/{name}"),
            Self::Node(node) => write!(f, "nodes/{node}"),
            Self::Security => f.write_str("security"),
        }
    }
}

impl Part {
    /// Whether the state has it.
    pub fn is_in(&self, state: &State) -> bool {
        match self {
            Self::App(app) => state.apps.contains_key(app),
            Self::Service(service) => state.services.contains_key(service),
            Self::Star(_, star) => state.stars.contains_key(star),
            Self::Volume(volume) => state.homes.contains_key(volume),
            Self::Secret(secret) => state.secrets.contains_key(secret),
            Self::Namespace(name) => state.namespaces.contains_key(name),
            Self::Node(node) => state.nodes.contains_key(node),
            Self::Security => state.security.is_some(),
        }
    }
}

/// What changes touched, in the state after them.
pub fn touched(state: &State, changes: &[Change]) -> BTreeSet<Part> {
    let mut parts = BTreeSet::new();
    for change in changes {
        match change {
            Change::AppPut { app } | Change::AppRemoved { app } => {
                parts.insert(Part::App(app.clone()));
            }
            Change::ServicePut { service }
            | Change::ServiceRemoved { service }
            | Change::RolloutMoved { service }
            | Change::PlaceChanged { service, .. } => {
                parts.insert(Part::Service(service.clone()));
            }
            // Its service counts its stars, and those that ended.
            Change::StarAssigned { star } | Change::StarMoved { star, phase: StarPhase::Ended } => {
                if let Some(record) = state.stars.get(star) {
                    parts.insert(Part::Service(record.service.clone()));
                    parts.insert(Part::Star(record.service.clone(), *star));
                }
            }
            Change::StarMoved { star, .. }
            | Change::StarLimited { star }
            | Change::StarToMove { star }
            | Change::StarLeaves { star } => {
                if let Some(record) = state.stars.get(star) {
                    parts.insert(Part::Star(record.service.clone(), *star));
                }
            }
            Change::StarForgotten { star, service } => {
                parts.insert(Part::Star(service.clone(), *star));
            }
            Change::VolumePlaced { volume } | Change::VolumeLost { volume } => {
                parts.insert(Part::Volume(volume.clone()));
            }
            Change::SecretSet { secret } | Change::SecretDeleted { secret } => {
                parts.insert(Part::Secret(secret.clone()));
            }
            Change::NamespaceChanged { namespace } | Change::NamespaceRemoved { namespace } => {
                parts.insert(Part::Namespace(namespace.clone()));
            }
            Change::NodeChanged { node } => {
                parts.insert(Part::Node(*node));
            }
            Change::SecurityChanged => {
                parts.insert(Part::Security);
            }
            Change::OvercommitChanged { nodes } => {
                parts.extend(nodes.iter().map(|node| Part::Node(*node)));
            }
            Change::Repeated { .. } | Change::Refused { .. } => {}
        }
    }
    parts
}

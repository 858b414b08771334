//! The ends of namespaces: who leads warns of them, and brings them about, by its own clock and through the log.

use std::time::Duration;

use model::{Name, Quota, StarId, Usage, VolumeKey, WallTime};
use serde::{Deserialize, Serialize};
use state::{Command, End};

use crate::log::Purpose;
use crate::node::{Node, Step};
use crate::services::WRITE_AGAIN;
use crate::timers::Timer;

/// Deadlines are by a clock that only goes on, ends by one that may be set: so often both are compared.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A namespace, what it may have and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NamespaceView {
    pub namespace: Name,
    /// When it was made; nothing of one that is only there because something is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<WallTime>,
    /// When it ends, with its apps and secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<WallTime>,
    pub quota: Quota,
    /// How much more processor time than their own its stars may borrow, in percent, where their service says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_borrow: Option<u32>,
    /// What its services ask for.
    pub used: Usage,
    /// What of that is beyond the quota, in words: it stays, and does not grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<String>,
    /// Stars that it has beyond its quota while there is room: they give way to stars of others.
    #[serde(default, skip_serializing_if = "is_none")]
    pub burst_stars: u64,
    pub apps: u64,
    /// Stars that have not ended.
    pub stars: u64,
    pub secrets: u64,
    pub volumes: Vec<VolumeKey>,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Node {
    /// Every namespace.
    pub fn namespace_views(&self) -> Vec<NamespaceView> {
        self.state.namespace_names().iter().map(|name| self.view_of_namespace(name)).collect()
    }

    /// One that is there.
    pub fn namespace_view(&self, name: &Name) -> Option<NamespaceView> {
        self.state.namespace_names().contains(name).then(|| self.view_of_namespace(name))
    }

    fn view_of_namespace(&self, name: &Name) -> NamespaceView {
        let (record, inside) = (self.state.namespaces.get(name), self.state.inside(name));
        let quota = record.map(|record| record.quota).unwrap_or_default();
        NamespaceView {
            namespace: name.clone(),
            created: record.map(|record| record.created),
            ends: record.and_then(|record| record.end).map(|end| end.at),
            quota,
            cpu_borrow: record.and_then(|record| record.cpu_borrow),
            used: self.state.usage_of(name),
            beyond: quota.exceeded(&self.state.services_in(name)),
            burst_stars: self.state.beyond_quota(name).len() as u64,
            apps: inside.apps.len() as u64,
            stars: inside.stars,
            secrets: inside.secrets.len() as u64,
            volumes: inside.volumes,
        }
    }

    /// What its stars may borrow may be other than before.
    pub(crate) fn fit_all_in(&mut self, namespace: &Name, step: &mut Step<'_>) {
        let is_in = |star: &StarId| self.state.stars.get(star).is_some_and(|star| star.service.namespace == *namespace);
        let stars: Vec<StarId> = self.stars.keys().copied().filter(is_in).collect();
        stars.into_iter().for_each(|star| self.fit(star, step));
    }

    /// Warns of ends and brings them about, and comes again when the next is due.
    pub(crate) fn look_at_namespaces(&mut self, step: &mut Step<'_>) {
        self.timers.clear(&Timer::Namespaces);
        if !self.peers.leads {
            return;
        }
        let (mut due, mut next) = (Vec::new(), None::<u64>);
        for (name, End { at, since, warned }) in
            self.state.namespaces.iter().filter_map(|(name, record)| Some((name, record.end?)))
        {
            let warns_at = End { at, since, warned }.warn_at();
            let then = if warned { at } else { warns_at };
            if at <= step.wall {
                due.push(Command::EndNamespace { namespace: name.clone(), at, wall: step.wall });
            } else if then <= step.wall {
                due.push(Command::WarnNamespace { namespace: name.clone(), at, wall: step.wall });
            }
            let wait = if then <= step.wall { at } else { then }.0.saturating_sub(step.wall.0);
            next = Some(next.map_or(wait, |first| first.min(wait)));
        }
        for command in due {
            let (Command::EndNamespace { namespace, .. } | Command::WarnNamespace { namespace, .. }) = &command else {
                continue;
            };
            let purpose = Purpose::Namespace(namespace.clone());
            if !self.log.is_under_way(&purpose) {
                self.propose(purpose, command, step);
            }
        }
        if let Some(wait) = next {
            // What is proposed now comes back as a change, or as not written.
            let wait = Duration::from_millis(wait).clamp(WRITE_AGAIN, LOOK_EVERY);
            self.timers.set(Timer::Namespaces, step.now + wait);
        }
    }
}

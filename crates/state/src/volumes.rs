//! Volumes: on which machine each lies, from its first use until it is deleted.

use std::collections::BTreeMap;

use model::{Code, NodeId, Problem, ServiceKey, StarPhase, VolumeKey, VolumeThere, WallTime};

use crate::apply::{Applied, Change};
use crate::record::State;

impl State {
    /// The services that name a volume, or have a star left that has it.
    pub fn users_of_volume(&self, volume: &VolumeKey) -> Vec<&ServiceKey> {
        let named = self.services.iter().map(|(key, record)| (key, &record.spec.template));
        let left = self.stars.of_volume(volume).filter(|star| star.phase != StarPhase::Ended);
        let has = |(key, template): &(&ServiceKey, &model::StarTemplate)| {
            key.namespace == volume.namespace && template.volumes.iter().any(|mount| mount.volume == volume.name)
        };
        let named = named.filter(has).map(|(key, _)| key);
        let mut users: Vec<&ServiceKey> = named.chain(left.map(|star| &star.service)).collect();
        users.sort();
        users.dedup();
        users
    }

    /// The volumes that lie on each machine, with who has them. Looks at every service once.
    pub fn volumes_by_node(&self) -> BTreeMap<NodeId, Vec<VolumeThere>> {
        let mut users: BTreeMap<&VolumeKey, Vec<ServiceKey>> = BTreeMap::new();
        let mut use_of = |service: &ServiceKey, template: &model::StarTemplate| {
            for volume in Self::volumes_of(service, template) {
                if let Some((volume, _)) = self.homes.get_key_value(&volume) {
                    users.entry(volume).or_default().push(service.clone());
                }
            }
        };
        if !self.homes.is_empty() {
            self.services.iter().for_each(|(key, record)| use_of(key, &record.spec.template));
        }
        let mut there: BTreeMap<NodeId, Vec<VolumeThere>> = BTreeMap::new();
        for (volume, home) in &self.homes {
            let mut services = users.remove(volume).unwrap_or_default();
            let left = self.stars.of_volume(volume).filter(|star| star.phase != StarPhase::Ended);
            services.extend(left.map(|star| star.service.clone()));
            services.sort();
            services.dedup();
            there.entry(*home).or_default().push(VolumeThere { volume: volume.clone(), services });
        }
        there
    }

    /// The volumes that lie on a machine, with who has them.
    pub fn volumes_on(&self, node: NodeId) -> Vec<VolumeThere> {
        let there = self.homes.values().any(|home| *home == node);
        if there { self.volumes_by_node().remove(&node).unwrap_or_default() } else { Vec::new() }
    }

    /// Refuses a volume that somebody has; whether the log knows of it is not asked.
    ///
    /// # Errors
    /// Says who has it.
    pub fn check_unused(&self, volume: &VolumeKey) -> Result<(), Problem> {
        match self.users_of_volume(volume).first() {
            None => Ok(()),
            Some(service) => {
                let problem =
                    Problem::new(Code::Conflict, format!("volume `{volume}` is in use by service `{service}`"));
                Err(problem.help("take it out of the app first; a stopped service has its volumes still"))
            }
        }
    }

    /// Where a volume lies, when the log knows of one.
    pub fn home_of(&self, volume: &VolumeKey) -> Option<NodeId> {
        self.homes.get(volume).copied()
    }
}

pub(crate) fn delete(state: &mut State, volume: &VolumeKey, wall: WallTime, changes: &mut Vec<Change>) -> Applied {
    if !state.homes.contains_key(volume) {
        return Err(Problem::new(Code::NotFound, format!("no volume `{volume}`")).help("`rads c volumes` lists them"));
    }
    state.check_unused(volume)?;
    state.homes.remove(volume);
    state.record(wall, format!("volume `{volume}` deleted"));
    changes.push(Change::VolumeLost { volume: volume.clone() });
    Ok(())
}

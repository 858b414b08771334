//! Volumes: on which machine each lies, from its first use until it is deleted.

use model::{Code, NodeId, Problem, ServiceKey, StarPhase, VolumeKey, WallTime};

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

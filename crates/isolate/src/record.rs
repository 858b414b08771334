//! A star's record: what a later nursery needs to know the star again, on disk before the star runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use model::{ExitCause, Limits, Network, StarId, User, Weakened};
use serde::{Deserialize, Serialize};

use crate::cgroup::Groups;
use crate::order::{BUNDLE, Content, StarOrder};

/// The form of the file; a later one is read beside this for a release.
const VERSION: u32 = 1;

const RECORD: &str = "record";
/// It is no record until it is called so.
const NEW: &str = "record.new";

/// The content of `record` in a star's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) star: StarId,
    pub(crate) generation: u64,
    /// The star's first process; 0 until it exists.
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) network: Network,
    /// Its own on the nursery's bridge, when it is there.
    #[serde(default)]
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether the first process is an init of ours, which forwards signals to the program.
    pub(crate) init: bool,
    /// Which range of user ids it has, in a nursery with privileges.
    pub(crate) slot: Option<u32>,
    pub(crate) groups: Groups,
    /// Its processes were stopped one by one, for want of a group to freeze it in.
    #[serde(default)]
    pub(crate) stopped: bool,
    #[serde(default)]
    pub(crate) stance: Stance,
    pub(crate) ended: Option<ExitCause>,
    /// It may run only for as long as somebody says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) leased: bool,
    /// What it may use, as it was ordered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Limits>,
}

/// As what a star's programs run, which holds for whatever is run in it later, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stance {
    pub(crate) workdir: Option<String>,
    pub(crate) user: Option<User>,
    pub(crate) weakened: Weakened,
    /// Where it may write, beside what every star has.
    #[serde(default)]
    pub(crate) writable: Vec<String>,
}

impl Stance {
    pub(crate) fn of(order: &StarOrder) -> Self {
        let places = order.places();
        let written = places.iter().filter(|place| matches!(place.content, Content::Volume(_) | Content::Tmpfs(_)));
        let own_root = order.root.iter().map(|_| "/".to_owned());
        Self {
            workdir: order.interior.workdir.clone(),
            user: order.interior.user,
            weakened: order.weakened.clone(),
            writable: own_root.chain(written.map(|place| place.inside.to_owned())).collect(),
        }
    }

    pub(crate) fn workdir(&self) -> &str {
        self.workdir.as_deref().unwrap_or(BUNDLE)
    }
}

impl Record {
    pub(crate) fn new(star: StarId, generation: u64, network: Network) -> Self {
        let groups = Groups::default();
        Self {
            version: VERSION,
            star,
            generation,
            pid: 0,
            start_time: 0,
            network,
            address: None,
            init: false,
            slot: None,
            groups,
            stopped: false,
            stance: Stance::default(),
            ended: None,
            leased: false,
            limits: None,
        }
    }

    /// The file of a record that is to come: to make it takes longer than to write it.
    pub(crate) fn blank(folder: &Path) -> io::Result<File> {
        File::create(folder.join(NEW))
    }

    /// Writes the record for the first time, into the folder's blank file. It outlives the nursery, not the machine: nothing is
    /// synced, because after a power cut there is no star to adopt.
    pub(crate) fn create(&self, folder: &Path, mut blank: &File) -> io::Result<()> {
        blank.write_all(&self.bytes()?)?;
        fs::rename(folder.join(NEW), folder.join(RECORD))
    }

    /// Replaces the record, whole or not at all.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        let bytes = self.bytes()?;
        let new = folder.join(NEW);
        fs::write(&new, bytes)?;
        fs::rename(new, folder.join(RECORD))
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        rmp_serde::to_vec_named(self).map_err(io::Error::other)
    }

    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        let bytes = fs::read(folder.join(RECORD))?;
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let record: Self = rmp_serde::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        match record.version {
            VERSION => Ok(record),
            other => Err(invalid(format!("a record of version {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::new(StarId(7), 3, Network::None);
        record.ended = Some(ExitCause::Code(2));
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), record);
        fs::write(folder.path().join("record"), b"\x80").unwrap();
        assert_eq!(Record::load(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

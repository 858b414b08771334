//! What a running star is on its host: ids, groups, namespaces, mounts, and the limits as the kernel has them. Read by
//! whoever asks; the nursery is not bothered.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use model::StarId;
use serde::{Deserialize, Serialize};

use crate::in_force::InForce;
use crate::record::Record;
use crate::{ids, in_force, star, usage};

/// What is known of a star from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Its first process, as the host numbers it.
    pub pid: u32,
    pub start_time: u64,
    /// The process of its program, where the first is an init of ours.
    pub program_pid: Option<u32>,
    /// How its root and the users after it are numbered on the host, and how many there are.
    pub first_user_id: u32,
    pub user_ids: u32,
    /// Its own on the bridge.
    pub address: Option<Ipv4Addr>,
    /// The folder of each controller's group.
    pub groups: BTreeMap<String, PathBuf>,
    /// As links of `/proc/PID/ns` have them, `net` → `net:[4026532281]`; those that are the host's are left out.
    pub namespaces: BTreeMap<String, String>,
    pub mounts: Vec<MountPoint>,
    pub limits: InForce,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    pub at: PathBuf,
    pub kind: String,
    pub source: String,
    pub options: String,
}

const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// Looks at a star; `None` when it does not run, `NotFound` when it is not known.
pub fn inspect(data_dir: &Path, star: StarId) -> io::Result<Option<Inspection>> {
    let record = Record::load(&crate::place::star(data_dir, star))?;
    if star::find(&record).is_none() {
        return Ok(None);
    }
    let member = star::member_pid(&record)?;
    let (first_user_id, user_ids) = match record.slot {
        Some(slot) => (ids::host_id(slot), ids::PER_STAR),
        None => (owner(record.pid)?, 1),
    };
    let mounts = usage::mounts(member)?;
    let limits = in_force::read(&record, &crate::place::star(data_dir, star), member, &mounts);
    let mounts = mounts.into_iter().map(|mount| MountPoint {
        at: mount.at,
        kind: mount.kind,
        source: mount.source,
        options: mount.options,
    });
    Ok(Some(Inspection {
        pid: record.pid,
        start_time: record.start_time,
        program_pid: record.init.then_some(member),
        first_user_id,
        user_ids,
        address: record.address,
        groups: record.groups.folders(),
        namespaces: namespaces(member),
        mounts: mounts.collect(),
        limits,
    }))
}

/// The host's user that a process runs as.
fn owner(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let first = line.and_then(|ids| ids.split_whitespace().next()?.parse().ok());
    first.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable process status"))
}

fn namespaces(pid: u32) -> BTreeMap<String, String> {
    let link = |pid: &str, name: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    let own = |name: &&str| {
        Some((String::from(*name), link(&pid.to_string(), name).filter(|it| link("self", name).as_ref() != Some(it))?))
    };
    NAMESPACES.iter().filter_map(own).collect()
}

//! Services that are stopped while they are restored, and that are to run again after that: what there is to know of it when
//! the agent is gone before it has come to it.
//!
//! `snapshots/.stopped-<namespace>.<service>` is there from before the service is stopped until it has been started again, and
//! says `paused` when it stood still.

use std::fs;

use model::{Name, Problem, ServiceKey};

use super::Snapshots;
use super::waiting::text;
use crate::fault;

/// No snapshot's name has a dot.
const STOPPED: &str = ".stopped-";

/// A service that nobody has started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    pub service: ServiceKey,
    /// It is to stand still again.
    pub paused: bool,
}

impl Snapshots {
    /// Notes that a service is about to be stopped and is to run again. Durable when it returns.
    pub fn note_stopped(&self, stopped: &Stopped) -> Result<(), Problem> {
        let _pieces = self.pieces();
        let name = format!("{STOPPED}{}", text(&stopped.service));
        let content: &[u8] = if stopped.paused { b"paused" } else { b"" };
        self.write(&name, content).map_err(|error| fault::problem("write", &self.folder.join(&name), &error))
    }

    /// Whatever was noted of a service, it is done or nobody wants it any more.
    pub fn forget_stopped(&self, service: &ServiceKey) {
        let path = self.folder.join(format!("{STOPPED}{}", text(service)));
        // What cannot be removed starts a service that was to stay stopped, once.
        let _ = fs::remove_file(&path);
    }

    /// What was noted and not forgotten.
    pub fn left_stopped(&self) -> Vec<Stopped> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let left = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (namespace, service) = name.strip_prefix(STOPPED)?.split_once('.')?;
            let service =
                ServiceKey { namespace: namespace.parse::<Name>().ok()?, name: service.parse::<Name>().ok()? };
            Some(Stopped { service, paused: fs::read(entry.path()).is_ok_and(|content| content == b"paused") })
        });
        left.collect()
    }
}

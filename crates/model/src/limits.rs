//! What a star may use, and changes of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::cpus::CpuSet;
use crate::units::{Bytes, Millicores};

/// What a star may use. `None` is unlimited, and shown as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Processor time, in thousandths of a core: 250 is a quarter of one.
    pub cpu: Option<Millicores>,
    /// Bytes of memory without swap; reaching it ends the star with an out-of-memory kill.
    pub memory: Option<Bytes>,
    /// Bytes of memory beyond which the kernel takes back what it can from the star, before it takes from others. Nobody dies of
    /// it; a star that stays above it gets slower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_soft: Option<Bytes>,
    /// Processes and threads together.
    pub pids: Option<u32>,
    /// Descriptors each process may have open. `None`: as many as the machine gives, at most `OPEN_FILES_MAX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    /// Bytes it may write to its disk: its `/tmp`, and what it changes in a root of its own. `None`: it has no disk, and both are
    /// memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Bytes of its output, with what the log notes before each line, that are taken in a second; one that writes faster waits.
    /// `None`: `LOG_RATE_MAX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_rate: Option<Bytes>,
    /// The processors it runs on. `None`: all that the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuSet>,
    /// Of processor time it left unused, how much it may use later beyond `cpu`, in percent of what `cpu` gives it in 100 ms.
    /// `None`: 100, where the kernel can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst: Option<u32>,
    /// How much more than `cpu` it may use of processors that no other star wants just now, in percent of `cpu`. It is taken back at once
    /// when one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_borrow: Option<u32>,
    /// Bytes it reads in a second from the disk of the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read: Option<Bytes>,
    /// Bytes it writes to it in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write: Option<Bytes>,
    /// The soft limit of memory follows what it uses, in place of `memory_soft`.
    #[serde(default, skip_serializing_if = "is_off")]
    pub balloon: bool,
}

fn is_off(flag: &bool) -> bool {
    !flag
}

impl Limits {
    pub const UNLIMITED: Self = Self {
        cpu: None,
        memory: None,
        memory_soft: None,
        pids: None,
        open_files: None,
        disk: None,
        log_rate: None,
        cpus: None,
        cpu_burst: None,
        cpu_borrow: None,
        io_read: None,
        io_write: None,
        balloon: false,
    };
    /// The defaults of a spec that names no limits: no star takes a machine down by mistake.
    pub const DEFAULT: Self = Self { memory: Some(Bytes::mib(256)), pids: Some(256), ..Self::UNLIMITED };
    /// A RADS star needs about 1 MiB to live; below this it would die before its first request.
    pub const SCRIPT_MEMORY_MIN: Bytes = Bytes::mib(4);
    /// The kernel's own bookkeeping for a process needs this much.
    pub const COMMAND_MEMORY_MIN: Bytes = Bytes::mib(1);
    /// Below one percent of a core the kernel's shortest quota (1 ms in 100 ms) cannot express it.
    pub const CPU_MIN: Millicores = Millicores(10);
    /// A program has its standard streams, and a RADS star needs a dozen more before its first request.
    pub const OPEN_FILES_MIN: u32 = 32;
    /// Programs that close or try every descriptor there could be get slow beyond this.
    pub const OPEN_FILES_MAX: u32 = 65_536;
    /// A file system takes some of its own.
    pub const DISK_MIN: Bytes = Bytes::mib(4);
    /// Beyond it an image takes seconds to be made. Volumes have the same bounds.
    pub const DISK_MAX: Bytes = Bytes::mib(4 << 20);
    /// Of less not even what a star says at its start would come through.
    pub const LOG_RATE_MIN: Bytes = Bytes::kib(1);
    /// More than anybody reads, and a tenth of what a disk writes.
    pub const LOG_RATE_MAX: Bytes = Bytes::mib(10);
    /// The kernel lets nobody use more later than all of what it left unused.
    pub const CPU_BURST_MAX: u32 = 100;
    /// More than anybody has processors for.
    pub const CPU_BORROW_MAX: u32 = 100_000;
    /// Below a few pages a second a star could not even be loaded.
    pub const IO_MIN: Bytes = Bytes::kib(64);
}

/// A change of some limits, in the units of `Limits`: what is absent stays, what is `null` becomes unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LimitsChange {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub cpu: Option<Option<Millicores>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub memory: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub memory_soft: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub pids: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub open_files: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub disk: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub log_rate: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub cpus: Option<Option<CpuSet>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub cpu_burst: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub cpu_borrow: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub io_read: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub io_write: Option<Option<Bytes>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<bool>,
}

/// A field that is there at all, though it may be `null`.
pub(crate) fn there<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl LimitsChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn of(&self, before: &Limits) -> Limits {
        Limits {
            cpu: self.cpu.unwrap_or(before.cpu),
            memory: self.memory.unwrap_or(before.memory),
            memory_soft: self.memory_soft.unwrap_or(before.memory_soft),
            pids: self.pids.unwrap_or(before.pids),
            open_files: self.open_files.unwrap_or(before.open_files),
            disk: self.disk.unwrap_or(before.disk),
            log_rate: self.log_rate.unwrap_or(before.log_rate),
            cpus: self.cpus.unwrap_or(before.cpus),
            cpu_burst: self.cpu_burst.unwrap_or(before.cpu_burst),
            cpu_borrow: self.cpu_borrow.unwrap_or(before.cpu_borrow),
            io_read: self.io_read.unwrap_or(before.io_read),
            io_write: self.io_write.unwrap_or(before.io_write),
            balloon: self.balloon.unwrap_or(before.balloon),
        }
    }

    /// The change that takes this one back, made when `before` held. What is no longer as this one made it stays: somebody
    /// has changed it since.
    #[must_use]
    pub fn taken_back(&self, before: &Limits, now: &Limits) -> Self {
        fn back<T: PartialEq>(made: Option<T>, before: T, now: T) -> Option<T> {
            made.filter(|made| *made == now).map(|_| before)
        }
        Self {
            cpu: back(self.cpu, before.cpu, now.cpu),
            memory: back(self.memory, before.memory, now.memory),
            memory_soft: back(self.memory_soft, before.memory_soft, now.memory_soft),
            pids: back(self.pids, before.pids, now.pids),
            open_files: back(self.open_files, before.open_files, now.open_files),
            disk: back(self.disk, before.disk, now.disk),
            log_rate: back(self.log_rate, before.log_rate, now.log_rate),
            cpus: back(self.cpus, before.cpus, now.cpus),
            cpu_burst: back(self.cpu_burst, before.cpu_burst, now.cpu_burst),
            cpu_borrow: back(self.cpu_borrow, before.cpu_borrow, now.cpu_borrow),
            io_read: back(self.io_read, before.io_read, now.io_read),
            io_write: back(self.io_write, before.io_write, now.io_write),
            balloon: back(self.balloon, before.balloon, now.balloon),
        }
    }
}

/// The names and values of limits, for people.
pub fn limit_fields(limits: &Limits) -> Vec<(&'static str, String)> {
    fn text<T: fmt::Display>(value: Option<T>) -> String {
        value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string())
    }
    let mut fields =
        vec![("cpu", text(limits.cpu)), ("memory", text(limits.memory.map(Bytes::exact))), ("pids", text(limits.pids))];
    if let Some(soft) = limits.memory_soft {
        fields.insert(2, ("soft memory", soft.exact()));
    }
    if limits.balloon {
        fields.insert(2, ("soft memory", "follows use".to_owned()));
    }
    if let Some(files) = limits.open_files {
        fields.push(("open files", files.to_string()));
    }
    if let Some(disk) = limits.disk {
        fields.push(("disk", disk.exact()));
    }
    if let Some(rate) = limits.log_rate {
        fields.push(("log rate", format!("{}/s", rate.exact())));
    }
    fields.extend(limits.cpus.map(|cpus| ("processors", cpus.to_string())));
    fields.extend(limits.cpu_burst.map(|burst| ("cpu burst", format!("{burst} %"))));
    fields.extend(limits.cpu_borrow.map(|more| ("cpu borrowed", format!("{more} % more"))));
    fields.extend(limits.io_read.map(|rate| ("disk reads", format!("{}/s", rate.exact()))));
    fields.extend(limits.io_write.map(|rate| ("disk writes", format!("{}/s", rate.exact()))));
    fields
}

/// `memory 64 MiB → 256 MiB`: what differs, for people; empty when nothing does.
pub fn limits_difference(before: &Limits, after: &Limits) -> String {
    let (old, new) = (limit_fields(before), limit_fields(after));
    let value = |fields: &[(&str, String)], name: &str| {
        fields.iter().find(|(field, _)| *field == name).map_or("none".to_owned(), |(_, value)| value.clone())
    };
    let mut names: Vec<&str> = old.iter().chain(&new).map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    let changes = names.into_iter().filter(|name| value(&old, name) != value(&new, name));
    let changes: Vec<String> =
        changes.map(|name| format!("{name} {} → {}", value(&old, name), value(&new, name))).collect();
    changes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_tells_absent_from_unlimited() {
        let change: LimitsChange = serde_json::from_str(r#"{"memory": null, "pids": 7}"#).unwrap();
        assert_eq!(change, LimitsChange { memory: Some(None), pids: Some(Some(7)), ..LimitsChange::default() });
        let before = Limits { cpu: Some(Millicores(250)), ..Limits::DEFAULT };
        let after = change.of(&before);
        assert_eq!(after, Limits { cpu: Some(Millicores(250)), pids: Some(7), ..Limits::UNLIMITED });
        assert_eq!(limits_difference(&before, &after), "memory 256 MiB → unlimited, pids 256 → 7");
        let nearly = |mib| Limits { memory: Some(Bytes::mib(mib)), ..Limits::DEFAULT };
        assert_eq!(limits_difference(&nearly(1_041), &nearly(1_042)), "memory 1041 MiB → 1042 MiB");
        assert_eq!(serde_json::to_string(&change).unwrap(), r#"{"memory":null,"pids":7}"#);
        assert!(serde_json::from_str::<LimitsChange>(r#"{"ram": 1}"#).is_err());
    }

    #[test]
    fn a_change_is_taken_back_where_it_still_holds() {
        let before = Limits { cpu: Some(Millicores(250)), ..Limits::DEFAULT };
        let change = LimitsChange { cpu: Some(None), pids: Some(Some(7)), ..LimitsChange::default() };
        let now = change.of(&before);
        assert_eq!(change.taken_back(&before, &now).of(&now), before);
        let since = Limits { pids: Some(9), memory: None, ..now };
        let left = change.taken_back(&before, &since);
        assert_eq!(left, LimitsChange { cpu: Some(before.cpu), ..LimitsChange::default() });
    }
}

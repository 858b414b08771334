//! How a star spends its processor time, and whether others come first.

use std::fs;
use std::io;
use std::time::Duration;

use model::Limits;

use super::group::{Group, Groups, PERIOD_US, Version};
use super::turns::Turn;
use super::{keyed, number, write};

/// Whether a group runs only where nobody else wants to; by the same name in both versions, from Linux 5.15 on.
const GIVES_WAY_FILE: &str = "cpu.idle";

/// A group's quota, period by period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    /// In which anything ran.
    pub(crate) periods: u64,
    /// In which all of the quota was used before the end.
    pub(crate) cut_short: u64,
    /// Processor time that it used in all; nothing where it is not counted.
    pub(crate) used: Duration,
}

/// What a star may use in a period, with so many percent more.
pub(super) fn quota_us(limits: &Limits, more_percent: u32) -> Option<u64> {
    limits.cpu.map(|cpu| u64::from(cpu.0) * PERIOD_US / 1000 * (100 + u64::from(more_percent)) / 100)
}

impl Groups {
    /// How often it had used up its processor time, and if that is asked for how much that was; `None` where that is not counted.
    pub(crate) fn spent(&self, with_use: bool) -> Option<Spent> {
        let text = fs::read_to_string(self.cpu.as_ref()?.dir.join("cpu.stat")).ok()?;
        let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        let used = if with_use { self.used().unwrap_or_default() } else { Duration::ZERO };
        Some(Spent { periods: number("nr_periods ")?, cut_short: number("nr_throttled ")?, used })
    }

    /// Processor time that it has used in all.
    pub(super) fn used(&self) -> Option<Duration> {
        let Group { version, dir } = self.usage.as_ref()?;
        match version {
            Version::V1 => number(dir, "cpuacct.usage").map(Duration::from_nanos),
            Version::V2 => keyed(dir, "cpu.stat", "usage_usec").map(Duration::from_micros),
        }
    }

    /// Lends it what its limits allow of processors that nobody else wants, or takes that back.
    pub(crate) fn lend(&self, limits: &Limits, lends: bool) -> io::Result<()> {
        let Some((group, more)) = self.cpu.as_ref().zip(limits.cpu_borrow.filter(|more| *more > 0)) else {
            return Ok(());
        };
        let quota = quota_us(limits, if lends { more } else { 0 });
        // Whoever is told anew begins his period anew.
        match group.quota().map(|(quota, _)| quota) == quota {
            true => Ok(()),
            false => group.limit_cpu(quota, limits.cpu_burst),
        }
    }

    /// Lets it run only where nobody else wants to, or like everybody else.
    pub(crate) fn give_way(&self, gives_way: bool) -> io::Result<()> {
        let Some(group) = &self.cpu else { return Ok(()) };
        // The mark is there as long as any turn may be long: a nursery that follows looks for it.
        let shortened = if gives_way { Ok(()) } else { group.take_turns(Turn::Usual) };
        write(&group.dir, GIVES_WAY_FILE, u8::from(gives_way))?;
        if gives_way { group.take_turns(Turn::Long) } else { shortened }
    }

    /// Has those give way that came into it since by themselves, as commands executed in it do.
    pub(crate) fn still_give_way(&self) -> io::Result<()> {
        self.cpu.as_ref().map_or(Ok(()), |group| group.take_turns(Turn::Long))
    }

    /// Whether it was told to.
    pub(crate) fn gives_way(&self) -> bool {
        self.cpu.as_ref().is_some_and(|group| number(&group.dir, GIVES_WAY_FILE) == Some(1))
    }
}

impl Group {
    /// Whether the kernel knows groups that run only where nobody else wants to.
    pub(super) fn can_give_way(&self) -> bool {
        self.dir.join(GIVES_WAY_FILE).exists()
    }
}

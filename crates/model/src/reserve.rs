//! What is kept for a star, or for a machine itself, and whether a machine has so much.
//!
//! A limit is the most that a star may use; several machines' worth of limits may be on one machine, most of the time nobody uses
//! them. What is kept for a star is never promised twice, unless an operator says so ([`Overcommit`]).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::machine::NodeFacts;
use crate::problem::{Code, Problem};
use crate::units::{Bytes, Millicores};

/// Processor time and memory that are kept; nothing unless it is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Reserve {
    #[serde(default, skip_serializing_if = "is_no_cpu")]
    pub cpu: Millicores,
    #[serde(default, skip_serializing_if = "is_no_memory")]
    pub memory: Bytes,
}

fn is_no_cpu(cpu: &Millicores) -> bool {
    cpu.0 == 0
}

fn is_no_memory(memory: &Bytes) -> bool {
    memory.0 == 0
}

impl Reserve {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether so much is within what another keeps.
    pub fn is_within(&self, other: &Self) -> bool {
        self.cpu <= other.cpu && self.memory <= other.memory
    }

    /// What of it is left when so much of it is used.
    #[must_use]
    pub fn less(&self, used: &Self) -> Self {
        let cpu = Millicores(self.cpu.0.saturating_sub(used.cpu.0));
        Self { cpu, memory: Bytes(self.memory.0.saturating_sub(used.memory.0)) }
    }
}

/// `50 % of a core and 256 MiB`.
impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cpu.0 > 0, self.memory.0 > 0) {
            (true, true) => write!(f, "{} of a core and {}", self.cpu, self.memory.exact()),
            (true, false) => write!(f, "{} of a core", self.cpu),
            (false, true) => f.write_str(&self.memory.exact()),
            (false, false) => f.write_str("nothing"),
        }
    }
}

/// What is kept for several stars together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Kept {
    /// In thousandths of a core.
    pub cpu: u64,
    /// In bytes.
    pub memory: u64,
}

impl Kept {
    /// With so many stars more.
    #[must_use]
    pub fn with(self, reserve: &Reserve, stars: u32) -> Self {
        let stars = u64::from(stars);
        Self {
            cpu: self.cpu.saturating_add(u64::from(reserve.cpu.0).saturating_mul(stars)),
            memory: self.memory.saturating_add(reserve.memory.0.saturating_mul(stars)),
        }
    }

    /// Without one of them.
    #[must_use]
    pub fn without(self, reserve: &Reserve) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(reserve.cpu.0.into()),
            memory: self.memory.saturating_sub(reserve.memory.0),
        }
    }

    /// Without all of another.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }
}

/// How much of a machine may be kept for stars, in percent of what it does not keep for itself: more than all of it where they are known
/// not to use what is kept for them all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Overcommit {
    pub cpu_percent: u32,
    pub memory_percent: u32,
}

/// The most that a machine may be overcommitted, in percent.
pub const OVERCOMMIT_MAX: u32 = 1_000;

impl Default for Overcommit {
    fn default() -> Self {
        Self { cpu_percent: 100, memory_percent: 100 }
    }
}

impl Overcommit {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// # Errors
    /// One is below 100 percent, or beyond [`OVERCOMMIT_MAX`].
    pub fn check(&self) -> Result<(), Problem> {
        for (what, percent) in [("processors", self.cpu_percent), ("memory", self.memory_percent)] {
            if !(100..=OVERCOMMIT_MAX).contains(&percent) {
                let said = format!("{percent} % of a machine's {what} cannot be kept for stars");
                let problem = Problem::new(Code::InvalidValue, said);
                return Err(problem.help(format!(
                    "it is from 100 to {OVERCOMMIT_MAX} %; what a machine keeps for itself is said when it joins"
                )));
            }
        }
        Ok(())
    }
}

/// `200 % of the processors, 120 % of the memory`.
impl fmt::Display for Overcommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % of the processors, {} % of the memory", self.cpu_percent, self.memory_percent)
    }
}

/// What a machine has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    Cpu { needs: Millicores, free: Millicores },
    Memory { needs: Bytes, free: Bytes },
}

impl Lack {
    /// The one of two of a kind of which there is more; nothing when they are of different kinds.
    #[must_use]
    pub fn nearer(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Cpu { free: one, .. }, Self::Cpu { free: two, .. }) => Some(if one >= two { self } else { other }),
            (Self::Memory { free: one, .. }, Self::Memory { free: two, .. }) => {
                Some(if one >= two { self } else { other })
            }
            _ => None,
        }
    }
}

/// What is left of a machine's memory, which is no round number: whole MiB, rounded down, so that so much can be asked for.
pub fn free_memory(free: Bytes) -> String {
    const MIB: u64 = Bytes::mib(1).0;
    Bytes(if free.0 < MIB { free.0 } else { free.0 - free.0 % MIB }).exact()
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { needs, free } => write!(f, "a star keeps {needs} of a core, {free} is free"),
            Self::Memory { needs, free } => {
                write!(f, "a star keeps {} of memory, {} is free", needs.exact(), free_memory(*free))
            }
        }
    }
}

impl NodeFacts {
    /// What can be kept for its stars: all but what is kept for the machine itself, as often as its operator says. Nothing of what is
    /// not known of it.
    pub fn room(&self) -> (Option<u64>, Option<u64>) {
        let cpu = u64::from(self.cores) * 1_000;
        let left = |has: u64, own: u64, percent: u32| {
            let promised = u128::from(has.saturating_sub(own)) * u128::from(percent) / 100;
            (has > 0).then(|| u64::try_from(promised).unwrap_or(u64::MAX))
        };
        let Overcommit { cpu_percent, memory_percent } = self.overcommit;
        let memory = left(self.memory.0, self.reserved.memory.0, memory_percent);
        (left(cpu, self.reserved.cpu.0.into(), cpu_percent), memory)
    }

    /// What keeps one more star off it of which so much is to be kept, beside what is kept already. Of what is not known of it
    /// nothing is refused.
    pub fn lacks(&self, kept: Kept, needs: &Reserve) -> Option<Lack> {
        let (cpu, memory) = self.room();
        let free = |has: Option<u64>, kept: u64, needs: u64| {
            let free = has?.saturating_sub(kept);
            (needs > free).then_some(free)
        };
        if let Some(left) = free(memory, kept.memory, needs.memory.0) {
            return Some(Lack::Memory { needs: needs.memory, free: Bytes(left) });
        }
        let left = free(cpu, kept.cpu, needs.cpu.0.into())?;
        Some(Lack::Cpu { needs: needs.cpu, free: Millicores(u32::try_from(left).unwrap_or(u32::MAX)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cores: u32, megabytes: u64, own_megabytes: u64) -> NodeFacts {
        let reserved = Reserve { cpu: Millicores(500), memory: Bytes::mib(own_megabytes) };
        NodeFacts { cores, memory: Bytes::mib(megabytes), reserved, ..NodeFacts::default() }
    }

    #[test]
    fn what_is_kept_for_the_machine_and_for_others_is_not_free() {
        let kept = Kept { cpu: 1_000, memory: 512 << 20 };
        let check = |cpu, megabytes, expected: Option<&str>| {
            let needs = Reserve { cpu: Millicores(cpu), memory: Bytes::mib(megabytes) };
            let lack = machine(2, 2_048, 1_024).lacks(kept, &needs);
            assert_eq!(lack.map(|lack| lack.to_string()).as_deref(), expected, "{needs:?}");
        };
        check(500, 512, None);
        check(500, 513, Some("a star keeps 513 MiB of memory, 512 MiB is free"));
        let uneven = Lack::Memory { needs: Bytes::mib(8_000), free: Bytes(6_351_810_560) };
        assert_eq!(uneven.to_string(), "a star keeps 8000 MiB of memory, 6057 MiB is free");
        check(501, 512, Some("a star keeps 50.1 % of a core, 50 % is free"));
        check(0, 0, None);
    }

    #[test]
    fn what_is_overcommitted_is_kept_more_than_once_but_not_what_the_machine_keeps_for_itself() {
        let mut facts = machine(2, 2_048, 1_024);
        facts.overcommit = Overcommit { cpu_percent: 200, memory_percent: 150 };
        assert_eq!(facts.room(), (Some(3_000), Some(1_536 << 20)));
        let all = Reserve { cpu: Millicores(3_000), memory: Bytes::mib(1_536) };
        assert_eq!(facts.lacks(Kept::default(), &all), None);
        let more = Reserve { cpu: Millicores(3_001), ..all };
        assert!(facts.lacks(Kept::default(), &more).is_some());
        facts.overcommit.memory_percent = u32::MAX;
        facts.memory = Bytes(u64::MAX);
        assert_eq!(facts.room().1, Some(u64::MAX));
        for (cpu_percent, memory_percent) in [(99, 100), (100, 0), (1_001, 100), (100, u32::MAX)] {
            assert!(Overcommit { cpu_percent, memory_percent }.check().is_err(), "{cpu_percent} {memory_percent}");
        }
    }

    #[test]
    fn of_a_machine_that_is_not_known_nothing_is_refused_and_one_that_is_overfull_is_full() {
        let much = Reserve { cpu: Millicores(9_000), memory: Bytes::mib(9_000) };
        assert_eq!(NodeFacts::default().lacks(Kept::default(), &much), None);
        let over = Kept { cpu: 0, memory: u64::MAX };
        let one = Reserve { memory: Bytes(1), ..Reserve::default() };
        assert_eq!(machine(0, 10, 20).lacks(over, &one), Some(Lack::Memory { needs: Bytes(1), free: Bytes(0) }));
        // Who asks for nothing to be kept gets on everywhere.
        assert_eq!(machine(2, 10, 20).lacks(over, &Reserve::default()), None);
    }
}

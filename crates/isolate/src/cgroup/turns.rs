//! How long the turns are that those in a group take on a processor.
//!
//! `cpu.idle` tells only groups and processes directly beside each other apart, and a star's group lies inside that of all stars: whoever is
//! in another group, as the agent and the programs of the machine are, would wait for the end of the star's turn all the same.
//! From Linux 6.12 on a thread may say how long its turns are, its groups take after those who wait in them,
//! and whoever has shorter ones interrupts. How much of the processor each gets is the same.

use std::fs;
use std::io;

use super::group::{Group, Version};
use crate::sys::schedule::{self, SchedulerAttributes};

/// The longest turn that the kernel grants, in nanoseconds; usual are one to three milliseconds.
const LONGEST: u64 = 100_000_000;
/// How often a group's threads are gone through until all take such turns. Threads and processes take after those who made them.
const LOOKS: usize = 100;
/// Fields of `sched_attr.flags` to be handed back: what is made is as the kernel has it by itself.
const RESET_ON_FORK: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// As long as the kernel has it.
    Usual,
    Long,
}

/// Does something for which whoever is woken meanwhile need not wait. What is started by it takes such turns from then on, until it is
/// told otherwise.
pub(crate) fn without_hurry<T>(work: impl FnOnce() -> T) -> T {
    let told = Turn::Long.tell(schedule::SELF);
    let done = work();
    if told {
        Turn::Usual.tell(schedule::SELF);
    }
    done
}

/// A process of one thread is like any other from now on.
pub(crate) fn hurry(process: u32) {
    Turn::Usual.tell(process);
}

/// Whether this kernel lets threads say how long their turns are. Those before say nothing of it.
pub(super) fn can_be_lengthened() -> bool {
    schedule::scheduler(schedule::SELF).is_ok_and(|attributes| attributes.runtime > 0)
}

impl Turn {
    /// What a thread is to be told; `None` when it takes such turns, or none whose length could be told.
    fn of(self, attributes: SchedulerAttributes) -> Option<SchedulerAttributes> {
        let SchedulerAttributes { policy, flags, runtime, .. } = attributes;
        let has_turns = [libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(policy as i32));
        let runtime = match self {
            Self::Long if runtime != LONGEST => LONGEST,
            Self::Usual if runtime == LONGEST => 0,
            _ => return None,
        };
        let told = SchedulerAttributes { runtime, flags: flags & RESET_ON_FORK, ..attributes };
        (has_turns && attributes.runtime > 0).then_some(told)
    }

    /// Whether a thread had to be told, and could be.
    fn tell(self, thread: u32) -> bool {
        let told = schedule::scheduler(thread).ok().and_then(|attributes| self.of(attributes));
        told.is_some_and(|told| schedule::set_scheduler(thread, told).is_ok())
    }
}

impl Group {
    /// Has every thread in it take such turns. Those that may not be told to keep theirs.
    pub(super) fn take_turns(&self, turn: Turn) -> io::Result<()> {
        let file = self.dir.join(match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        });
        for _ in 0..LOOKS {
            let threads = fs::read_to_string(&file)?;
            let told = threads.lines().filter(|thread| thread.parse().is_ok_and(|thread| turn.tell(thread))).count();
            if told == 0 {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: SchedulerAttributes = SchedulerAttributes {
        size: 48,
        policy: libc::SCHED_BATCH as u32,
        flags: RESET_ON_FORK | 1 << 5,
        nice: 7,
        priority: 0,
        runtime: 1_400_000,
        deadline: 0,
        period: 0,
    };

    #[test]
    fn a_long_turn_leaves_the_rest_as_it_was_and_is_taken_back() {
        let long = Turn::Long.of(USUAL).unwrap();
        assert_eq!(long, SchedulerAttributes { runtime: LONGEST, flags: RESET_ON_FORK, ..USUAL });
        assert_eq!(Turn::Long.of(long), None);
        assert_eq!(Turn::Usual.of(long), Some(SchedulerAttributes { runtime: 0, ..long }));
        assert_eq!(Turn::Usual.of(USUAL), None);
    }

    #[test]
    fn what_is_done_without_hurry_is_done_in_long_turns_and_nothing_else_is() {
        let turn = || schedule::scheduler(schedule::SELF).unwrap().runtime;
        let usual = turn();
        if usual == 0 {
            eprintln!("skipped: this kernel's turns have no length that could be told (before Linux 6.12)");
            return;
        }
        let within = without_hurry(|| {
            without_hurry(|| ());
            turn()
        });
        assert_eq!((within, turn()), (LONGEST, usual));
    }

    #[test]
    fn whose_turns_have_no_length_is_left_alone() {
        for policy in [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE, libc::SCHED_IDLE] {
            assert_eq!(Turn::Long.of(SchedulerAttributes { policy: policy as u32, ..USUAL }), None);
        }
        let before_slices = SchedulerAttributes { runtime: 0, ..USUAL };
        assert_eq!(Turn::Long.of(before_slices), None);
    }
}

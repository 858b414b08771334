//! The pool as whoever asks is shown it: what the log knows, and what each machine says that it uses at the moment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use api::{Caller, Client, NodeResources, ResourcesView};
use model::{Bytes, Problem, Standing};
use node::Node;

use crate::beside::beside;
use crate::control::Remote;

/// Processor time is looked at twice, this far apart: long enough for the kernel's ticks of 10 ms to tell one percent from
/// three, short enough to wait for.
const SAMPLE: Duration = Duration::from_millis(300);

/// What a machine uses, and the size of its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    /// In thousandths of a core.
    cpu: Option<u64>,
    memory: Option<u64>,
    /// Of the file system of the data folder: how much of how much.
    disk: Option<(u64, u64)>,
}

impl Remote {
    /// The pool of all nodes; of this one when another node asks.
    pub(crate) async fn all_resources(&self, caller: Caller) -> Result<ResourcesView, Problem> {
        let own_alone = caller.from.is_some();
        let look = |node: &Node| {
            let up = node.state().nodes.iter().filter(|(_, record)| record.standing == Standing::Up);
            (node.id(), node.resources_view(), up.map(|(node, _)| *node).collect::<Vec<_>>())
        };
        let (me, mut view, up) = self.looker().look(look).await?;
        let data_dir = self.data_dir.clone();
        let own = beside(move || Ok(used(&data_dir)));
        let others = up.into_iter().filter(|node| *node != me && !own_alone);
        let ask = |client: Client| async move { client.resources().await };
        let (own, answers) = tokio::join!(own, self.ask_all(others, caller, ask));
        let own = own?;
        for node in &mut view.nodes {
            if node.node == me {
                note(node, own);
            }
            let told = answers.iter().find(|(of, _)| *of == node.node).and_then(|(_, answer)| answer.as_ref().ok());
            let told = told.and_then(|told| told.nodes.iter().find(|told| told.node == node.node));
            if let Some(told) = told {
                let disk = told.pool.disk;
                note(
                    node,
                    Used {
                        cpu: told.pool.cpu.used,
                        memory: told.pool.memory.used,
                        disk: disk.used.map(|used| (used, disk.capacity)),
                    },
                );
            }
        }
        view.nodes.retain(|node| !own_alone || node.node == me);
        view.sum_up();
        Ok(view)
    }
}

fn note(node: &mut NodeResources, used: Used) {
    (node.pool.cpu.used, node.pool.memory.used) = (used.cpu, used.memory);
    if let Some((used, capacity)) = used.disk {
        let disk = &mut node.pool.disk;
        (disk.used, disk.capacity, disk.free) = (Some(used), capacity, capacity.saturating_sub(used));
    }
}

/// Waits for [`SAMPLE`].
fn used(data_dir: &Path) -> Used {
    let ticks = || busy_and_all(&fs::read_to_string("/proc/stat").ok()?);
    let first = ticks();
    std::thread::sleep(SAMPLE);
    let memory = fs::read_to_string("/proc/meminfo").ok();
    Used {
        cpu: first.zip(ticks()).and_then(|(before, after)| thousandths(before, after)),
        memory: memory.and_then(|text| memory_used(&text)),
        disk: rustix::fs::statvfs(data_dir).ok().map(|disk| {
            // As `df` has it: what only root may fill counts as used.
            let capacity = disk.f_blocks.saturating_mul(disk.f_frsize);
            (capacity.saturating_sub(disk.f_bavail.saturating_mul(disk.f_frsize)), capacity)
        }),
    }
}

/// Ticks of all processors together, and how many processors there are, by proc_stat(5): those that were busy, and all.
fn busy_and_all(stat: &str) -> Option<(u64, u64, u64)> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; those of guests are in user and nice.
    let ticks: Vec<u64> = fields.split_whitespace().take(8).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let [_, _, _, idle, waiting, ..] = ticks[..] else { return None };
    let all: u64 = ticks.iter().sum();
    let processors = stat.lines().filter(|line| line.starts_with("cpu")).count() as u64 - 1;
    Some((all - idle - waiting, all, processors))
}

fn thousandths(before: (u64, u64, u64), after: (u64, u64, u64)) -> Option<u64> {
    let (busy, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    (busy * after.2 * 1_000).checked_div(all)
}

/// What programs can have without anything being swapped; `None` where the kernel does not say.
pub(crate) fn memory_left() -> Option<Bytes> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:").map(Bytes::kib)
}

/// What is not available to a program that asks for more.
fn memory_used(meminfo: &str) -> Option<u64> {
    Some(kilobytes(meminfo, "MemTotal:")?.saturating_sub(kilobytes(meminfo, "MemAvailable:")?) * 1024)
}

/// A row of proc_meminfo(5).
fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_what_passed_between_two_looks() {
        let first =
            "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu1 50 0 25 400 25 0 0 0 0 0\nintr 5\n";
        let second = "cpu  130 0 70 850 50 0 0 0 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\nintr 5\n";
        let (before, after) = (busy_and_all(first).unwrap(), busy_and_all(second).unwrap());
        assert_eq!(before, (150, 1_000, 2));
        // Half of the time of two processors.
        assert_eq!(thousandths(before, after), Some(1_000));
        assert_eq!(thousandths(after, after), None);
        assert_eq!(busy_and_all("nothing"), None);
    }

    #[test]
    fn memory_is_used_that_is_not_available() {
        let text = "MemTotal:        4045212 kB\nMemFree:          100000 kB\nMemAvailable:    3045212 kB\n";
        assert_eq!(memory_used(text), Some(1_000_000 * 1024));
        assert_eq!(memory_used("MemTotal:        4045212 kB\n"), None);
    }
}

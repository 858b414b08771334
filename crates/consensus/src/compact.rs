//! When the log gives way to a snapshot, and how much of it stays.
//!
//! By bytes, not by entries: a command may be a hundred bytes or half a mebibyte. The log is in memory and on the disk, so
//! this bounds both.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;

use crate::config::Config;
use crate::log::Log;
use crate::machine::Machine;
use crate::raft::{Raft, Types};

/// A snapshot that is not there after this long, because the disk is full, is waited for no longer before looking again.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked at while the log grows: in that time a fast disk takes a fraction of the bytes it is kept to.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How many bytes of commands are worth a snapshot: making one costs as much as the last one was large, and the disk holds
/// a log and a snapshot, so the first is let grow as large as the second.
fn worth_a_snapshot(snapshot_bytes: u64, config: &Config) -> u64 {
    config.compact_bytes.max(snapshot_bytes)
}

/// The last entry to drop, of those a snapshot stands for, so that about `keep` bytes of them stay.
fn drop_upto(sizes: &[(u64, u64)], keep: u64) -> Option<u64> {
    let mut kept = 0;
    let newest_first = sizes.iter().rev();
    newest_first
        .map(|(index, size)| {
            (index, {
                kept += size;
                kept
            })
        })
        .find(|(_, kept)| *kept > keep)
        .map(|(index, _)| *index)
}

/// Watches the log grow and keeps it short, until openraft ends.
pub(crate) async fn run(raft: Raft, log: Log, machine: Machine, config: Config) {
    let mut metrics = raft.data_metrics();
    let mut asked = None;
    loop {
        loop {
            let bytes = log.bytes();
            if bytes >= worth_a_snapshot(machine.snapshot_bytes(), &config) + config.keep_bytes {
                break;
            }
            if metrics.changed().await.is_err() {
                return;
            }
            // Every answer to a heartbeat is told as a change, too.
            if log.bytes() != bytes {
                Types::sleep(LOOK_EVERY).await;
            }
        }
        let (before, applied) = {
            let now = metrics.borrow_watched();
            (now.snapshot, now.last_applied)
        };
        // What a snapshot stands for already may still be there, while it is sent to somebody.
        let sizes = log.sizes(applied.map_or(0, |last| last.index));
        let since = sizes.iter().filter(|(index, _)| before.is_none_or(|last| *index > last.index));
        if since.map(|(_, size)| size).sum::<u64>() >= worth_a_snapshot(machine.snapshot_bytes(), &config) {
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
            let made = async {
                while metrics.borrow_watched().snapshot <= before {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
            };
            let _ = Types::timeout(SNAPSHOT_WITHIN, made).await;
        }
        let snapshot = metrics.borrow_watched().snapshot;
        let upto = snapshot.and_then(|last| drop_upto(&log.sizes(last.index), config.keep_bytes));
        // Asked once: openraft does it when nobody needs the entries any more. To ask is news to whoever waits for any, as this does.
        if let Some(upto) = upto.filter(|upto| asked < Some(*upto)) {
            asked = Some(upto);
            if raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_when_the_log_outgrows_it() {
        let config = Config { compact_bytes: 100, ..Config::new(model::NodeId(1)) };
        assert_eq!([0, 99, 101].map(|snapshot| worth_a_snapshot(snapshot, &config)), [100, 100, 101]);
    }

    #[test]
    fn the_newest_entries_stay() {
        let sizes = [(4, 10), (5, 10), (6, 10), (7, 10)];
        assert_eq!(drop_upto(&sizes, 0), Some(7));
        assert_eq!(drop_upto(&sizes, 20), Some(5));
        assert_eq!(drop_upto(&sizes, 25), Some(5));
        assert_eq!(drop_upto(&sizes, 40), None);
        assert_eq!(drop_upto(&[], 0), None);
    }
}

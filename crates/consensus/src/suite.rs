//! openraft's own tests of a log and a state machine, on the store's disk and on the one in memory.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;
use tokio::sync::mpsc::{self, Receiver};

use crate::disk::Disk;
use crate::flusher::Flusher;
use crate::log::{Log, Memory};
use crate::machine::{Applied, Machine};
use crate::raft::Types;
use crate::support::{InMemory, OnDisk};

struct OnStore;
struct OnMemory;

fn build(mut disk: impl Disk) -> (Receiver<Applied>, Log, Machine) {
    let memory = Memory::read(&disk.load().unwrap()).unwrap();
    let (flusher, _) = Flusher::start(disk, Box::new(|problem| panic!("{problem}"))).unwrap();
    let (applied, receiver) = mpsc::channel(100);
    (receiver, Log::new(memory, flusher.clone()), Machine::new(flusher, applied))
}

impl StoreBuilder<Types, Log, Machine, (TempDir, Receiver<Applied>)> for OnStore {
    async fn build(&self) -> Result<((TempDir, Receiver<Applied>), Log, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let (receiver, log, machine) = build(OnDisk::open(dir.path()).unwrap());
        Ok(((dir, receiver), log, machine))
    }
}

impl StoreBuilder<Types, Log, Machine, Receiver<Applied>> for OnMemory {
    async fn build(&self) -> Result<(Receiver<Applied>, Log, Machine), StorageError<Types>> {
        Ok(build(InMemory::default().open()))
    }
}

#[test]
fn the_log_and_the_machine_pass_the_suite_of_openraft() {
    Types::run(Suite::test_all(OnStore)).unwrap();
    Types::run(Suite::test_all(OnMemory)).unwrap();
}

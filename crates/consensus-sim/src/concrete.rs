//! A voter on any disk, with any way to the others, told apart at run time: openraft is compiled here once, and not in everything that
//! uses it.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use model::{NodeId, Problem};
use tokio::sync::mpsc;

use crate::{Applied, Config, Consensus, Disk, Fault, Kept, Lane, PeerError, Peers, Stored, Write};

/// As [`Peers`].
pub trait Carrier: Debug + Send + Sync {
    fn request(&self, to: NodeId, lane: Lane, request: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, PeerError>>;
}

#[derive(Debug, Clone)]
struct Any(Arc<dyn Carrier>);

impl Peers for Any {
    fn request(
        &self,
        to: NodeId,
        lane: Lane,
        request: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, PeerError>> + Send + 'static + use<> {
        self.0.request(to, lane, request)
    }
}

impl Disk for Box<dyn Disk> {
    fn load(&mut self) -> Result<Stored, Fault> {
        (**self).load()
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), Fault> {
        (**self).commit(writes)
    }

    fn snapshot(&mut self) -> Result<Option<Kept>, Fault> {
        (**self).snapshot()
    }
}

/// As [`Consensus::start`].
pub fn start(
    config: Config,
    disk: Box<dyn Disk>,
    peers: Arc<dyn Carrier>,
    on_fatal: Box<dyn FnOnce(&Problem) + Send>,
) -> BoxFuture<'static, Result<(Consensus, mpsc::Receiver<Applied>), Problem>> {
    Box::pin(Consensus::start(config, disk, Any(peers), on_fatal))
}

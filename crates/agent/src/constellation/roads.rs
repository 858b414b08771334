//! How to reach the other nodes: where they are, and connections to them that are kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Code, NodeId, Problem, Standing};
use net::connection::Failure;
use net::pool::CallError;
use net::{Connection, Endpoint, Pool, Purpose, Stream};
use rnp::message::StreamOpen;
use rnp::{ErrorCode, Fault, Message};
use state::State;
use tokio::sync::watch;

use super::home::Home;

/// Bytes of a stream that the other side may send ahead: enough for a gigabit over a millisecond, twice.
const WINDOW_BYTES: u32 = 256 << 10;
/// Longest wait for a name to become an address.
const LOOKUP_FOR: Duration = Duration::from_secs(2);

/// Clones lead to the same nodes.
#[derive(Clone)]
pub(crate) struct Roads {
    me: NodeId,
    pool: Arc<Pool>,
    /// Everybody who did not leave, this node too.
    book: Arc<watch::Sender<BTreeMap<NodeId, String>>>,
}

impl Roads {
    /// With what the home and the state know of the others.
    pub(crate) fn new(home: &Home, endpoint: Endpoint) -> Self {
        let seeds = home.seeds.iter().map(|seed| (seed.node, seed.address.clone()));
        let own = [(home.node, home.advertise.clone())];
        let book = Arc::new(watch::Sender::new(seeds.chain(own).collect()));
        Self { me: home.node, pool: Arc::new(Pool::new(endpoint)), book }
    }

    #[cfg(test)]
    pub(super) fn with_book(me: NodeId, endpoint: Endpoint, book: BTreeMap<NodeId, String>) -> Self {
        Self { me, pool: Arc::new(Pool::new(endpoint)), book: Arc::new(watch::Sender::new(book)) }
    }

    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.pool.endpoint()
    }

    /// Takes over where the log says that nodes are.
    pub(crate) fn learn(&self, state: &State) {
        let there = || {
            let there = state.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
            there.map(|(node, record)| (node, &record.address))
        };
        if there().next().is_none() {
            return;
        }
        // After every command of the log, of which hardly any says so: looking must cost nothing.
        self.book.send_if_modified(|known| {
            let same = known.len() == there().count()
                && known.iter().zip(there()).all(|((one, at), (other, place))| one == other && at == place);
            if !same {
                *known = there().map(|(node, address)| (*node, address.clone())).collect();
            }
            !same
        });
    }

    /// Everybody else.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.book.borrow().keys().copied().filter(|node| *node != self.me).collect()
    }

    /// Changes when nodes come, go or move.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<NodeId, String>> {
        self.book.subscribe()
    }

    /// Where a node is.
    ///
    /// # Errors
    /// `NotFound` when it is no node of the constellation; `Unavailable` when its name leads nowhere now.
    pub(crate) async fn address(&self, node: NodeId) -> Result<SocketAddr, Problem> {
        let text = self.book.borrow().get(&node).cloned();
        let text = text.ok_or_else(|| Problem::new(Code::NotFound, format!("no node `{node}`")))?;
        resolve(&text).await
    }

    /// Asks a node.
    ///
    /// # Errors
    /// What the node answered, or why it could not be asked. Kinds that may be repeated are.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        purpose: Purpose,
        message: impl Into<Message>,
        within: Duration,
    ) -> Result<Message, Problem> {
        let address = self.address(node).await?;
        let asked = self.pool.call(node, address, purpose, message, within).await;
        asked.map_err(|error| problem(node, &error))
    }

    /// Asks a node once, and says whether it may have been heard.
    ///
    /// # Errors
    /// As [`Roads::call`]; the problem says `after_changes` when the node may have done it.
    pub(crate) async fn call_once(
        &self,
        node: NodeId,
        purpose: Purpose,
        message: impl Into<Message>,
        within: Duration,
    ) -> Result<Message, CallError> {
        let unreachable = |problem: Problem| {
            let fault = Fault::new(ErrorCode::NotFound, problem.message);
            CallError::Request(Failure::Refused(fault))
        };
        let address = self.address(node).await.map_err(unreachable)?;
        let connection = self.pool.get(node, address, purpose).await?;
        Ok(connection.request(message, within).await?)
    }

    /// A connection to a node, for questions that are not asked twice.
    ///
    /// # Errors
    /// Why there is none; nothing was sent.
    pub(crate) async fn connection(&self, node: NodeId, purpose: Purpose) -> Result<Connection, Problem> {
        let address = self.address(node).await?;
        let connected = self.pool.get(node, address, purpose).await;
        connected.map_err(|error| Problem::new(Code::Unavailable, error.to_string()))
    }

    /// Opens a stream to a service of a node.
    ///
    /// # Errors
    /// As [`Roads::call`].
    pub(crate) async fn open(
        &self,
        node: NodeId,
        purpose: Purpose,
        service: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Stream, Problem> {
        self.open_wide(node, purpose, service, body, WINDOW_BYTES, within).await
    }

    /// The same, on which the other side may send so many bytes ahead at first.
    ///
    /// # Errors
    /// As [`Roads::call`].
    pub(crate) async fn open_wide(
        &self,
        node: NodeId,
        purpose: Purpose,
        service: &str,
        body: Bytes,
        window: u32,
        within: Duration,
    ) -> Result<Stream, Problem> {
        let address = self.address(node).await?;
        let open = StreamOpen { stream: 0, window, service: service.to_owned(), body };
        let opened = self.pool.open(node, address, purpose, open, within);
        let opened = tokio::time::timeout(within, opened).await;
        let opened = opened.unwrap_or(Err(CallError::Request(Failure::Timeout)));
        opened.map_err(|error| problem(node, &error))
    }
}

/// What a text `host:port` leads to.
pub(crate) async fn resolve(text: &str) -> Result<SocketAddr, Problem> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let nowhere = |why: String| Problem::new(Code::Unavailable, format!("`{text}` leads to no address: {why}"));
    let found = tokio::time::timeout(LOOKUP_FOR, tokio::net::lookup_host(text)).await;
    let mut found =
        found.map_err(|_| nowhere("no answer in time".to_owned()))?.map_err(|error| nowhere(error.to_string()))?;
    found.next().ok_or_else(|| nowhere("it has none".to_owned()))
}

/// What a refusal or a failure on the way means to whoever asked here.
pub(crate) fn problem(node: NodeId, error: &CallError) -> Problem {
    let CallError::Request(Failure::Refused(fault)) = error else {
        return Problem::new(Code::Unavailable, format!("node `{node}` cannot be reached: {error}"));
    };
    refused(fault)
}

/// Details of a refusal that say to a person what the code of the protocol does not.
const CODE: &str = "code";
const HELP: &str = "help";

/// What a node's refusal means to whoever asked here.
pub(crate) fn refused(fault: &Fault) -> Problem {
    let said = fault.details.get(CODE).and_then(|said| Code::ALL.iter().find(|code| code.as_str() == said));
    let code = said.copied().unwrap_or_else(|| nearest(fault.code));
    let problem = Problem::new(code, fault.message.clone());
    match fault.details.get(HELP) {
        Some(help) => problem.help(help.clone()),
        None => problem,
    }
}

/// Of a node that says no more.
fn nearest(code: ErrorCode) -> Code {
    match code {
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::Conflict => Code::Conflict,
        ErrorCode::Timeout => Code::Timeout,
        ErrorCode::Unauthorized | ErrorCode::AuthFailed => Code::Forbidden,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::QuotaExceeded => Code::NoCapacity,
        _ => Code::Unavailable,
    }
}

/// The other way round.
pub(crate) fn fault(problem: &Problem) -> Fault {
    let code = match problem.code {
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::Conflict => ErrorCode::Conflict,
        Code::Timeout => ErrorCode::Timeout,
        Code::Forbidden => ErrorCode::Unauthorized,
        Code::NoCapacity => ErrorCode::QuotaExceeded,
        Code::Unavailable | Code::DiskFull => ErrorCode::ResourceExhausted,
        _ => ErrorCode::Internal,
    };
    let fault = Fault::new(code, problem.message.clone()).detail(CODE, problem.code.as_str());
    match &problem.help {
        Some(help) => fault.detail(HELP, help),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_here_as_it_was_there() {
        for code in Code::ALL {
            for problem in [Problem::new(*code, "no"), Problem::new(*code, "no").help("try `rads c nodes`")] {
                assert_eq!(refused(&fault(&problem)), problem);
            }
        }
        // By a node that says less, or more than is known here.
        let bare = Fault::new(ErrorCode::NotFound, "no");
        assert_eq!(refused(&bare), Problem::new(Code::NotFound, "no"));
        assert_eq!(refused(&bare.detail(CODE, "C9999")), Problem::new(Code::NotFound, "no"));
    }
}

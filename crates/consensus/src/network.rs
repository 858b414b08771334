//! What other voters are asked: openraft's requests, carried by [`Peers`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, future};
use model::NodeId;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;

use crate::config::Config;
use crate::peers::{Lane, PeerError, Peers};
use crate::raft::{LogId, Snapshot, Types, Vote};
use crate::snapshot::Image;
use crate::v1::{self, Answer, AppendAnswer, Request, TransferAnswer};

/// Requests with entries on their way to one voter: enough to keep its disk busy while answers travel. With requests of
/// 128 KiB and more, at most a few mebibytes.
const APPENDS_IN_FLIGHT: usize = 16;
/// A voter that has not answered entries for this long is asked again.
const APPEND_WITHIN: Duration = Duration::from_secs(2);
/// The same for a piece of a snapshot; the last one is answered when all of it is on the disk.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

/// A request may be refused for coming before another one; one that lost its log refuses all of them.
const REFUSALS_BY_CHANCE: u32 = 4;

type Failed = RPCError<Types>;

#[derive(Debug, Clone)]
pub(crate) struct Factory<P> {
    config: Arc<Config>,
    peers: P,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

/// What each voter has said to have, and under which leadership. openraft counts on it, and would end with an assertion where one
/// says that it has less.
#[derive(Debug, Default)]
struct Acknowledged(BTreeMap<NodeId, Has>);

#[derive(Debug)]
struct Has {
    vote: Vote,
    last: Option<LogId>,
    /// How often, since, it has said to have less.
    refusals: u32,
}

impl Acknowledged {
    fn note(&mut self, node: NodeId, vote: &Vote, last: Option<LogId>) {
        match self.0.get_mut(&node) {
            Some(has) if has.vote == *vote => {
                has.refusals = 0;
                has.last = has.last.max(last);
            }
            _ => drop(self.0.insert(node, Has { vote: *vote, last, refusals: 0 })),
        }
    }

    /// Whether it denies an entry that it has acknowledged. Said of it once that its log is lost.
    fn denies(&mut self, node: NodeId, vote: &Vote, entry: Option<LogId>) -> bool {
        let Some(has) = self.0.get_mut(&node).filter(|has| has.vote == *vote && entry <= has.last) else {
            return false;
        };
        has.refusals = has.refusals.saturating_add(1);
        if has.refusals == REFUSALS_BY_CHANCE {
            tracing::error!(%node, "it no longer has entries of the shared log that it has acknowledged: take it out, and let it join anew");
        }
        true
    }
}

/// The way to one voter, for one purpose.
#[derive(Debug, Clone)]
pub(crate) struct Network<P> {
    config: Arc<Config>,
    peers: P,
    to: NodeId,
    lane: Lane,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

impl<P: Peers> Factory<P> {
    pub(crate) fn new(config: Config, peers: P) -> Self {
        Self { config: Arc::new(config), peers, acknowledged: Arc::default() }
    }

    fn network(&self, to: u64, lane: Lane) -> Network<P> {
        let acknowledged = Arc::clone(&self.acknowledged);
        Network { config: Arc::clone(&self.config), peers: self.peers.clone(), to: NodeId(to), lane, acknowledged }
    }
}

impl<P: Peers> RaftNetworkFactory<Types> for Factory<P> {
    type Network = Network<P>;

    async fn new_client(&mut self, target: u64, (): &()) -> Network<P> {
        self.network(target, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, (): &()) -> Network<P> {
        self.network(target, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, (): &()) -> Network<P> {
        self.network(target, Lane::Bulk)
    }
}

impl<P: Peers> Network<P> {
    /// Sends at once; the future is the answer.
    fn ask(
        &self,
        lane: Lane,
        what: RPCTypes,
        within: Duration,
        request: &Request,
    ) -> impl Future<Output = Result<Answer, Failed>> + Send + use<P> {
        let sent = v1::encode(request).map(|bytes| self.peers.request(self.to, lane, bytes));
        let timeout = Timeout { action: what, id: self.config.me.0, target: self.to.0, timeout: within };
        async move {
            let sent = sent.map_err(failed)?;
            let answer = Types::timeout(within, sent).await.map_err(|_| RPCError::Timeout(timeout))?;
            let bytes = answer.map_err(|error| match error {
                PeerError::Unreachable(why) => RPCError::Unreachable(Unreachable::from_string(why)),
                PeerError::Failed(why) => failed(why),
            })?;
            match v1::decode_message(&bytes).map_err(|error| failed(format!("an answer that says nothing: {error}")))? {
                Answer::Refused(why) => Err(failed(why)),
                answer => Ok(answer),
            }
        }
    }

    fn append(
        &self,
        request: AppendEntriesRequest<Types>,
        within: Duration,
    ) -> impl Future<Output = Result<StreamAppendResult<Types>, Failed>> + Send + use<P> {
        let (previous, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let answer = self.append_request(request, within);
        async move { Ok(answer.await?.into_stream_result(previous, last.or(previous))) }
    }

    fn append_request(
        &self,
        request: AppendEntriesRequest<Types>,
        within: Duration,
    ) -> impl Future<Output = Result<AppendEntriesResponse<Types>, Failed>> + Send + use<P> {
        let (vote, previous, acknowledged, to) =
            (request.vote, request.prev_log_id, Arc::clone(&self.acknowledged), self.to);
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let request = Request::Append(v1::Append {
            vote: (&request.vote).into(),
            previous: request.prev_log_id.map(v1::LogId::from),
            committed: request.leader_commit.map(v1::LogId::from),
            entries: request.entries.iter().map(v1::Entry::from).collect(),
        });
        let answer = self.ask(self.lane, RPCTypes::AppendEntries, within, &request);
        async move {
            let answer = answer.await?;
            let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Answer::Append(AppendAnswer::Done) => {
                    acknowledged.note(to, &vote, last);
                    Ok(AppendEntriesResponse::Success)
                }
                Answer::Append(AppendAnswer::Part(last)) => {
                    let last = last.map(v1::LogId::into);
                    acknowledged.note(to, &vote, last);
                    Ok(AppendEntriesResponse::PartialSuccess(last))
                }
                Answer::Append(AppendAnswer::Conflict) if acknowledged.denies(to, &vote, previous) => {
                    Err(failed("it denies what it has acknowledged"))
                }
                Answer::Append(AppendAnswer::Conflict) => Ok(AppendEntriesResponse::Conflict),
                Answer::Append(AppendAnswer::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote.into())),
                other => Err(beside_the_point(&other)),
            }
        }
    }

    /// How long a request without entries may take, and one with.
    fn append_within(&self, option: &RPCOption) -> Duration {
        if self.lane == Lane::Control { option.hard_ttl() } else { APPEND_WITHIN }
    }

    async fn ask_for_vote(
        &self,
        request: VoteRequest<Types>,
        option: RPCOption,
        wrap: fn(v1::VoteRequest) -> Request,
    ) -> Result<VoteResponse<Types>, Failed> {
        let request = wrap(v1::VoteRequest {
            vote: (&request.vote).into(),
            last: request.last_log_id.map(v1::LogId::from),
            transfer: request.leadership_transfer,
        });
        match self.ask(Lane::Control, RPCTypes::Vote, option.hard_ttl(), &request).await? {
            Answer::Vote(answer) => {
                Ok(VoteResponse::new(Vote::from(answer.vote), answer.last.map(v1::LogId::into), answer.granted))
            }
            other => Err(beside_the_point(&other)),
        }
    }

    /// Sends a snapshot, beginning where the receiver says. Gives the receiver's vote when it has all of it, or follows
    /// another leader.
    async fn send_pieces(&self, vote: &Vote, last: v1::LogId, image: &Image) -> Result<Vote, Failed> {
        let size = image.bytes.len();
        let (mut offset, mut length) = (0, 0);
        loop {
            let request = Request::Piece(v1::Piece {
                vote: vote.into(),
                last,
                hash: v1::ByteArray(image.hash),
                size: size as u64,
                offset: offset as u64,
                bytes: image.bytes.slice(offset..offset + length),
            });
            let answer = match self.ask(Lane::Bulk, RPCTypes::InstallSnapshot, PIECE_WITHIN, &request).await? {
                Answer::Piece(answer) => answer,
                other => return Err(beside_the_point(&other)),
            };
            let theirs = Vote::from(answer.vote);
            if answer.installed || theirs > *vote {
                return Ok(theirs);
            }
            offset = usize::try_from(answer.next)
                .ok()
                .filter(|next| *next < size)
                .ok_or_else(|| failed(format!("asked for a piece at {} of a snapshot of {size} bytes", answer.next)))?;
            length = self.config.piece_bytes.min(size - offset);
        }
    }
}

impl<P: Peers> RaftNetworkV2<Types> for Network<P> {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failed> {
        self.append_request(request, self.append_within(&option)).await
    }

    /// Several requests are on their way at once, sent and answered for in order. The first failure ends the stream.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Failed>>, Failed>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let within = self.append_within(&option);
        let this = self.clone();
        let answers = input.map(move |request| this.append(request, within)).buffered(APPENDS_IN_FLIGHT);
        let until_failure = answers.scan((false, None), |(ended, kept), answer| {
            let pass = !*ended;
            let answer = match answer {
                Ok(Ok(last)) => {
                    *kept = last.max(*kept);
                    Ok(Ok(last))
                }
                // It overtook the one before it, which was answered for by now: what was sent is there, and is sent again.
                Ok(Err(StreamAppendError::Conflict(at))) if Some(at) <= *kept => {
                    Err(failed("a request overtook another"))
                }
                other => other,
            };
            *ended = !matches!(answer, Ok(Ok(_)));
            future::ready(pass.then_some(answer))
        });
        Box::pin(future::ready(Ok(Box::pin(until_failure) as BoxStream<'s, _>)))
    }

    async fn vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, Failed> {
        self.ask_for_vote(request, option, Request::Vote).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        self.ask_for_vote(request, option, Request::PreVote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Some(last) = snapshot.meta.last_log_id else {
            return Err(StreamingError::from(failed("an empty snapshot")));
        };
        let sending = std::pin::pin!(self.send_pieces(&vote, last.into(), &snapshot.snapshot));
        match future::select(sending, Box::pin(cancel)).await {
            future::Either::Left((sent, _)) => {
                let theirs = sent?;
                if theirs == vote {
                    let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                    acknowledged.note(self.to, &vote, Some(last));
                }
                Ok(SnapshotResponse::new(theirs))
            }
            future::Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Failed> {
        let expected = *request.from_leader();
        let last = request.last_log_id().copied();
        let request = Request::Transfer(v1::Transfer {
            from: (&expected).into(),
            to: NodeId(*request.to_node_id()),
            last: last.map(v1::LogId::from),
        });
        match self.ask(Lane::Control, RPCTypes::TransferLeader, option.hard_ttl(), &request).await? {
            Answer::Transfer(TransferAnswer::Accepted) => Ok(Ok(())),
            Answer::Transfer(TransferAnswer::VoteChanged(vote)) => {
                Ok(Err(TransferLeaderError::VoteChanged { expected, actual: vote.into() }))
            }
            Answer::Transfer(TransferAnswer::LogBehind(actual)) => {
                let actual = actual.map(v1::LogId::into);
                Ok(Err(TransferLeaderError::LogNotFlushed { expected: last, actual }))
            }
            other => Err(beside_the_point(&other)),
        }
    }
}

fn failed(why: impl ToString) -> Failed {
    RPCError::Network(NetworkError::from_string(why))
}

fn beside_the_point(answer: &Answer) -> Failed {
    let what = match answer {
        Answer::Vote(_) => "a vote",
        Answer::Append(_) => "entries",
        Answer::Piece(_) => "a piece",
        Answer::Transfer(_) => "a transfer",
        Answer::Refused(_) => "nothing",
    };
    failed(format!("an answer about {what} to another question"))
}

//! What peers ask of this voter.

use std::future::{self, Future};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::future::Either;
use model::NodeId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
};
use openraft::type_config::TypeConfigExt;
use tokio::sync::{mpsc, oneshot};

use crate::flusher::Flusher;
use crate::pulse::Heard;
use crate::raft::{Entry, Raft, Types};
use crate::snapshot::{Arrival, Taken};
use crate::v1::{self, Answer, AppendAnswer, PieceAnswer, Request, TransferAnswer, VoteAnswer};

/// Requests with entries that may wait for openraft. One leader has at most sixteen on their way; beyond this they are
/// refused, and sent again.
const APPENDS_MAX: usize = 128;

type Asked = (AppendEntriesRequest<Types>, oneshot::Sender<Answer>);

/// Takes requests. Clones take them to the same voter.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    raft: Raft,
    flusher: Flusher,
    appends: mpsc::Sender<Asked>,
    arrival: Arc<Mutex<Arrival>>,
}

impl Door {
    /// With the task that keeps entries in their order.
    pub(crate) fn new(raft: Raft, flusher: Flusher, heard: Heard) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (appends, asked) = mpsc::channel(APPENDS_MAX);
        let keeping_order = in_order(raft.clone(), asked, heard);
        (Self { raft, flusher, appends, arrival: Arc::default() }, keeping_order)
    }

    /// Takes the request now; the future is its answer.
    pub(crate) fn handle(&self, from: NodeId, request: &[u8]) -> impl Future<Output = Vec<u8>> + Send + use<> {
        let answer = match v1::decode_message::<Request>(request) {
            Ok(request) => match vouches(from, &request) {
                true => Either::Left(self.take(request)),
                false => refused(format!("{from} speaks for another node")),
            },
            Err(error) => refused(format!("a request that says nothing: {error}")),
        };
        async move {
            let answer = answer.await;
            // Only plain values are in an answer.
            v1::encode(&answer).unwrap_or_default()
        }
    }

    fn take(&self, request: Request) -> impl Future<Output = Answer> + Send + use<> {
        let this = self.clone();
        // Entries take their place before anything is waited for.
        let request = match request {
            Request::Append(append) => Err(self.take_append(append)),
            other => Ok(other),
        };
        async move {
            match request {
                Err(appended) => match appended {
                    Ok(answered) => {
                        answered.await.unwrap_or_else(|_| Answer::Refused("the shared log has ended".to_owned()))
                    }
                    Err(why) => Answer::Refused(why),
                },
                Ok(Request::Vote(request)) => this.vote(request, false).await,
                Ok(Request::PreVote(request)) => this.vote(request, true).await,
                Ok(Request::Piece(piece)) => this.piece(piece).await,
                Ok(Request::Transfer(transfer)) => this.transfer(transfer).await,
                Ok(Request::Append(_)) => Answer::Refused("taken before".to_owned()),
            }
        }
    }

    fn take_append(&self, append: v1::Append) -> Result<oneshot::Receiver<Answer>, String> {
        // It would be kept in memory only, without a bound. Without entries it is a sign of life and costs nothing.
        if !append.entries.is_empty() && self.flusher.is_full() {
            return Err("the disk is full".to_owned());
        }
        let entries: Result<Vec<Entry>, String> = append.entries.into_iter().map(v1::Entry::into_raft).collect();
        let entries = entries?;
        let mut previous = append.previous.map(|id| id.index);
        for entry in &entries {
            if previous.is_some_and(|previous| previous.checked_add(1) != Some(entry.log_id.index)) {
                return Err("entries with a gap".to_owned());
            }
            previous = Some(entry.log_id.index);
        }
        let request = AppendEntriesRequest {
            vote: append.vote.into(),
            prev_log_id: append.previous.map(v1::LogId::into),
            entries,
            leader_commit: append.committed.map(v1::LogId::into),
        };
        let (answer, answered) = oneshot::channel();
        self.appends.try_send((request, answer)).map_err(|_| "too many requests wait".to_owned())?;
        Ok(answered)
    }

    async fn vote(&self, request: v1::VoteRequest, pre: bool) -> Answer {
        let mut asked = VoteRequest::new(request.vote.into(), request.last.map(v1::LogId::into));
        asked.leadership_transfer = request.transfer;
        let answered = if pre { self.raft.pre_vote(asked).await } else { self.raft.vote(asked).await };
        match answered {
            Ok(answer) => Answer::Vote(VoteAnswer {
                vote: (&answer.vote).into(),
                granted: answer.vote_granted,
                last: answer.last_log_id.map(v1::LogId::from),
            }),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    async fn piece(&self, piece: v1::Piece) -> Answer {
        let mine = self.raft.metrics().borrow_watched().vote;
        if mine > piece.vote.into() {
            return Answer::Piece(PieceAnswer { vote: (&mine).into(), next: 0, installed: false });
        }
        let taken = self.arrival.lock().expect("no panic while it is held").take(&piece);
        let image = match taken {
            Ok(Taken::Next(next)) => return Answer::Piece(PieceAnswer { vote: piece.vote, next, installed: false }),
            Ok(Taken::Whole(image)) => image,
            Err(why) => return Answer::Refused(why),
        };
        let decoded = Types::spawn_blocking(move || image.decode()).await;
        let snapshot = match decoded.map_err(|error| error.to_string()).and_then(|decoded| decoded) {
            Ok((snapshot, _)) if snapshot.meta.last_log_id == Some(piece.last.into()) => snapshot,
            Ok(_) => return Answer::Refused("a snapshot of another index than announced".to_owned()),
            Err(error) => return Answer::Refused(format!("a snapshot that cannot be read by this version: {error}")),
        };
        match self.raft.install_full_snapshot(piece.vote.into(), snapshot).await {
            Ok(answer) => Answer::Piece(PieceAnswer { vote: (&answer.vote).into(), next: piece.size, installed: true }),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    async fn transfer(&self, transfer: v1::Transfer) -> Answer {
        let request =
            TransferLeaderRequest::new(transfer.from.into(), transfer.to.0, transfer.last.map(v1::LogId::into));
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Answer::Transfer(TransferAnswer::Accepted),
            Ok(Err(TransferLeaderError::VoteChanged { actual, .. })) => {
                Answer::Transfer(TransferAnswer::VoteChanged((&actual).into()))
            }
            Ok(Err(TransferLeaderError::LogNotFlushed { actual, .. })) => {
                Answer::Transfer(TransferAnswer::LogBehind(actual.map(v1::LogId::from)))
            }
            Err(error) => Answer::Refused(error.to_string()),
        }
    }
}

/// A node speaks for itself alone: it is the one its vote is for, or the leader it says it is.
fn vouches(from: NodeId, request: &Request) -> bool {
    let vote = match request {
        Request::Vote(request) | Request::PreVote(request) => &request.vote,
        Request::Append(append) => &append.vote,
        Request::Piece(piece) => &piece.vote,
        Request::Transfer(transfer) => &transfer.from,
    };
    vote.node == from && (vote.committed || matches!(request, Request::Vote(_) | Request::PreVote(_)))
}

fn refused<F: Future<Output = Answer>>(why: String) -> Either<F, future::Ready<Answer>> {
    Either::Right(future::ready(Answer::Refused(why)))
}

/// Hands entries to openraft in the order they came, and waits for the answers beside each other.
async fn in_order(raft: Raft, mut asked: mpsc::Receiver<Asked>, heard: Heard) {
    while let Some((request, answer)) = asked.recv().await {
        let (raft, heard) = (raft.clone(), heard.clone());
        let mut appended = Box::pin(async move {
            match raft.append_entries(request).await {
                Ok(answered) => {
                    // One of an earlier term is not followed, whatever it says.
                    if !matches!(answered, AppendEntriesResponse::HigherVote(_)) {
                        heard.note();
                    }
                    Answer::Append(append_answer(answered))
                }
                Err(error) => Answer::Refused(error.to_string()),
            }
        });
        // The first look at it puts the request into openraft's queue. Not subject to tokio's turns, or it might not.
        let first =
            future::poll_fn(|context| Poll::Ready(pin!(tokio::task::unconstrained(&mut appended)).poll(context)));
        match first.await {
            Poll::Ready(answered) => {
                let _ = answer.send(answered);
            }
            Poll::Pending => {
                // Nobody waits for the task itself: it ends with openraft at the latest.
                drop(Types::spawn(async move {
                    let _ = answer.send(appended.await);
                }));
            }
        }
    }
}

fn append_answer(answered: AppendEntriesResponse<Types>) -> AppendAnswer {
    match answered {
        AppendEntriesResponse::Success => AppendAnswer::Done,
        AppendEntriesResponse::PartialSuccess(last) => AppendAnswer::Part(last.map(v1::LogId::from)),
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
    }
}

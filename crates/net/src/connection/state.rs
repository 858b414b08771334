//! What the driver, callers, services and streams share of a connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use rnp::message::Priority;
use rnp::stream::WINDOW_BYTES_MAX;
use rnp::{ErrorCode, Message, StreamId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::stream::{Strand, StreamEnd};
use super::{Budget, Ended, Failure, NotSent, STREAMS_MAX, WINDOWS_BYTES};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// We said GOODBYE under this id, and wait until then for the answer.
    Leaving {
        until: Instant,
    },
    /// The other side said GOODBYE under this id: it is answered when nothing is under way any more.
    Left {
        id: u64,
        until: Instant,
    },
    /// Nothing more is read. What is queued is written if it can be done soon, then it is over.
    Ending,
}

/// What a frame that waits to be written holds on to.
#[derive(Debug)]
enum Holds {
    /// Room in the queue.
    Room {
        _permit: OwnedSemaphorePermit,
    },
    /// So many bytes of answers.
    Answer,
    /// So many bytes of our own.
    Echo,
    Nothing,
}

/// A frame that waits to be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: BytesMut,
    holds: Holds,
}

impl Outgoing {
    pub(super) fn request(frame: BytesMut, permit: OwnedSemaphorePermit) -> Self {
        Self { frame, holds: Holds::Room { _permit: permit } }
    }
}

/// Where a priority's things are in pairs of them.
pub(super) const fn lane(priority: Priority) -> usize {
    match priority {
        Priority::Vital => 0,
        Priority::Control => 1,
    }
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) ended: Option<Ended>,
    /// Wakes the driver; taken by whoever changes something.
    pub(super) driver: Option<Waker>,
    queues: [VecDeque<Outgoing>; 2],
    pub(super) waiting: HashMap<u64, oneshot::Sender<Message>>,
    /// Somebody doubts that the other side is there: it is asked now.
    pub(super) doubted: bool,
    /// The id of our GOODBYE.
    pub(super) goodbye: Option<u64>,
    pub(super) serving: [usize; 2],
    pub(super) answer_bytes: usize,
    pub(super) echo_bytes: usize,
    pub(super) streams: HashMap<StreamId, Strand>,
    /// Streams that have something to write, each once, in turn.
    pub(super) ready: VecDeque<StreamId>,
    windows: usize,
    opened: bool,
    next_own: Option<StreamId>,
    /// The highest number the other side has used.
    pub(super) last_theirs: StreamId,
}

impl State {
    pub(super) fn new(opened: bool) -> Self {
        Self {
            phase: Phase::Open,
            ended: None,
            driver: None,
            queues: [VecDeque::new(), VecDeque::new()],
            waiting: HashMap::new(),
            doubted: false,
            goodbye: None,
            serving: [0; 2],
            answer_bytes: 0,
            echo_bytes: 0,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            windows: 0,
            opened,
            next_own: Some(StreamId::first(opened)),
            last_theirs: StreamId(0),
        }
    }

    /// Whether something new may be asked.
    pub(super) fn may_ask(&self) -> Result<(), Failure> {
        match (&self.ended, self.phase) {
            (Some(reason), _) => Err(Failure::NotSent(NotSent::Ended(reason.clone()))),
            (None, Phase::Open) => Ok(()),
            (None, _) => Err(Failure::NotSent(NotSent::Leaving)),
        }
    }

    pub(super) fn load(&self) -> usize {
        self.waiting.len() + self.streams.len()
    }

    pub(super) fn push(&mut self, priority: Priority, outgoing: Outgoing) {
        self.queues[lane(priority)].push_back(outgoing);
    }

    /// A request was answered: its place is free, and the answer, if there is one, is to be written.
    pub(super) fn finish_serving(&mut self, priority: Priority, answer: Option<BytesMut>) {
        self.serving[lane(priority)] -= 1;
        if let Some(frame) = answer
            && self.ended.is_none()
        {
            self.answer_bytes += frame.len();
            self.push(priority, Outgoing { frame, holds: Holds::Answer });
        }
    }

    /// Queues what we say by ourselves.
    pub(super) fn push_echo(&mut self, frame: BytesMut) {
        self.echo_bytes += frame.len();
        self.push(Priority::Vital, Outgoing { frame, holds: Holds::Echo });
    }

    /// The next message to write, the most urgent first.
    pub(super) fn pop(&mut self) -> Option<BytesMut> {
        let outgoing = self.queues.iter_mut().find_map(VecDeque::pop_front)?;
        match outgoing.holds {
            Holds::Answer => self.answer_bytes -= outgoing.frame.len(),
            Holds::Echo => self.echo_bytes -= outgoing.frame.len(),
            Holds::Room { .. } | Holds::Nothing => {}
        }
        Some(outgoing.frame)
    }

    pub(super) fn has_messages(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_empty())
    }

    /// Whether nothing is under way: neither to be answered, nor waited for, nor to be written.
    pub(super) fn is_idle(&self) -> bool {
        let streams = self.streams.values().all(Strand::is_quiet);
        streams && self.waiting.is_empty() && self.serving == [0; 2] && !self.has_messages()
    }

    /// We say GOODBYE, unless it is over anyway.
    pub(super) fn leave(&mut self, id: u64, frame: BytesMut, patience: Duration) {
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving { until: Instant::now() + patience };
            self.goodbye = Some(id);
            // Behind the requests that were made before it.
            self.push(Priority::Control, Outgoing { frame, holds: Holds::Nothing });
        }
    }

    /// It is over, for the first reason that was given.
    pub(super) fn fail(&mut self, reason: Ended) {
        self.ended.get_or_insert(reason);
        self.phase = Phase::Ending;
    }

    // --- streams

    /// A number for a stream that we open.
    pub(super) fn open_own(&mut self, window: u32) -> Option<StreamId> {
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let number = self.next_own?;
        self.next_own = number.next();
        self.windows += window as usize;
        self.streams.insert(number, Strand::new(0, window));
        Some(number)
    }

    /// The other side opens a stream; we give it this window. Tells what is wrong with that.
    pub(super) fn open_theirs(
        &mut self,
        number: StreamId,
        credit: u32,
        window: u32,
    ) -> Result<(), (ErrorCode, &'static str)> {
        if !number.is_of(!self.opened) || number <= self.last_theirs {
            return Err((ErrorCode::Protocol, "the number of the stream is not one of yours that follows the last"));
        }
        self.last_theirs = number;
        if self.streams.len() >= STREAMS_MAX {
            return Err((ErrorCode::ResourceExhausted, "too many streams are open"));
        }
        if self.windows + window as usize > WINDOWS_BYTES {
            return Err((ErrorCode::ResourceExhausted, "the windows of the streams that are open are too large"));
        }
        self.windows += window as usize;
        self.streams.insert(number, Strand::new(credit.min(WINDOW_BYTES_MAX - 1), window));
        Ok(())
    }

    /// The other side takes the stream we opened, and that many bytes on it.
    pub(super) fn accepted(&mut self, number: StreamId, credit: u32) {
        if let Some(strand) = self.streams.get_mut(&number) {
            strand.credit(credit);
            self.touch(number);
        }
    }

    /// Gives a stream that has earned it a wider window with the credit it is about to give. Half of what the windows may be together
    /// is left to streams that are yet to be opened.
    pub(super) fn widen(&mut self, number: StreamId, widths: &Arc<Budget>) {
        if let Some(strand) = self.streams.get_mut(&number)
            && let Some(more) = strand.growth()
            && self.windows + more <= WINDOWS_BYTES / 2
            && let Some(loan) = widths.lend(more)
        {
            strand.widen(loan);
            self.windows += more;
        }
    }

    /// Whether the number has ever been used.
    pub(super) fn was_opened(&self, number: StreamId) -> bool {
        if number.is_of(self.opened) {
            self.next_own.is_none_or(|next| number < next)
        } else {
            number <= self.last_theirs
        }
    }

    /// Puts a stream among those to write, if it has something to.
    pub(super) fn touch(&mut self, number: StreamId) {
        if let Some(strand) = self.streams.get_mut(&number)
            && !strand.queued
            && strand.has_output()
        {
            strand.queued = true;
            self.ready.push_back(number);
        }
    }

    /// Takes a stream away when both sides are through with it, and all that was to be said of it is.
    pub(super) fn settle(&mut self, number: StreamId) -> Option<Strand> {
        let over = self.streams.get(&number).is_some_and(Strand::is_over);
        over.then(|| self.remove(number)).flatten()
    }

    pub(super) fn remove(&mut self, number: StreamId) -> Option<Strand> {
        let strand = self.streams.remove(&number)?;
        self.windows -= strand.window as usize;
        Some(strand)
    }

    /// Ends everything that waits; called once, by the driver, at the end. Streams stay for their handles to read what had
    /// come, and that nothing more does.
    pub(super) fn clear(&mut self) -> Vec<Waker> {
        self.queues = [VecDeque::new(), VecDeque::new()];
        self.waiting.clear();
        self.ready.clear();
        self.streams.retain(|_, strand| !strand.abandoned);
        let fail = |strand: &mut Strand| {
            strand.fail(StreamEnd::Connection);
            strand.take_wakers()
        };
        self.streams.values_mut().flat_map(fail).flatten().collect()
    }
}

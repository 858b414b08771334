//! Streams: bytes in both directions on a connection, each side sending no more than the other takes.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use rnp::stream::{Body, PIECE_BYTES_MAX, WINDOW_BYTES_MAX};
use rnp::{ErrorCode, StreamId};

use super::{Inner, Loan};

/// Bytes a writer may be ahead of the connection.
const AHEAD_BYTES: usize = 2 * PIECE_BYTES_MAX;

/// Pieces below this are copied together.
const SMALL_BYTES: usize = 16 << 10;
/// Pieces from this on are not copied: their data is written from where it is, and kept with the buffer it was read into, which is about
/// twice as long at most.
pub(super) const LONG_BYTES: usize = PIECE_BYTES_MAX / 2;

/// How wide a window becomes at most: 40 MB/s over a way of 100 ms there and back.
const WIDEST_BYTES: usize = 4 << 20;
/// So many windows are carried, in all, before it becomes twice as wide.
const WIDER_AFTER: usize = 8;

/// Why a stream does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    #[error("the other side reset the stream ({0})")]
    Reset(ErrorCode),
    #[error("the other side sent more than it may")]
    Overrun,
    #[error("no memory is left for what the other side sends")]
    Full,
    #[error("the stream was finished or reset on this side")]
    Local,
    #[error("the connection has ended")]
    Connection,
}

/// One stream. Both directions may be used at once, each by one task. Dropped before this side has finished it is reset; dropped
/// after that, what was written is still sent, and then the other side told that nothing more is read.
pub struct Stream {
    inner: Arc<Inner>,
    number: StreamId,
}

impl Stream {
    pub(super) fn new(inner: Arc<Inner>, number: StreamId) -> Self {
        Self { inner, number }
    }

    pub fn number(&self) -> StreamId {
        self.number
    }

    /// The next bytes; nothing once the other side has finished. Taking them lets it send as many more.
    ///
    /// # Errors
    /// When the stream was reset or the connection has ended; what had come before is given first.
    pub async fn read(&self) -> Result<Option<Bytes>, StreamEnd> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    pub(super) fn poll_read(&self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, StreamEnd>> {
        let mut state = self.inner.lock();
        let Some(strand) = state.streams.get_mut(&self.number) else {
            return Poll::Ready(Err(StreamEnd::Connection));
        };
        let Some(bytes) = strand.take_input() else {
            if strand.end_received {
                return Poll::Ready(Ok(None));
            }
            if let Some(end) = strand.failed {
                return Poll::Ready(Err(end));
            }
            strand.kept_up = true;
            strand.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.inner.shared.budget.give(bytes.len());
        let grants = strand.consumed(bytes.len());
        // The driver has something to do only when there is credit to give.
        let driver = if grants {
            state.touch(self.number);
            state.driver.take()
        } else {
            None
        };
        drop(state);
        if let Some(waker) = driver {
            waker.wake();
        }
        Poll::Ready(Ok(Some(bytes)))
    }

    /// Sends bytes; returns when all of them are queued, of which two pieces at most are not yet on their way.
    ///
    /// # Errors
    /// When the stream was finished or reset, or the connection has ended.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), StreamEnd> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            poll_fn(|cx| self.poll_room(cx)).await?;
            self.push(piece);
        }
        Ok(())
    }

    /// Queues a piece; there must be room.
    pub(super) fn push(&self, piece: Bytes) {
        self.change(|strand| strand.push_output(piece));
    }

    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), StreamEnd>> {
        let mut state = self.inner.lock();
        let Some(strand) = state.streams.get_mut(&self.number) else {
            return Poll::Ready(Err(StreamEnd::Connection));
        };
        if let Some(end) = strand.failed {
            return Poll::Ready(Err(end));
        }
        if strand.finished {
            return Poll::Ready(Err(StreamEnd::Local));
        }
        if strand.output_bytes < AHEAD_BYTES {
            return Poll::Ready(Ok(()));
        }
        strand.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Says that no more bytes come from this side. What was written is sent.
    pub fn finish(&self) {
        self.change(|strand| strand.finished = true);
    }

    /// Ends both directions at once; the other side is told `code`.
    pub fn reset(&self, code: ErrorCode) {
        let held = self.change(|strand| {
            strand.reset(code, StreamEnd::Local);
            strand.drop_input()
        });
        self.inner.shared.budget.give(held.unwrap_or(0));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Strand) -> T) -> Option<T> {
        self.inner.change(|state| {
            let result = state.streams.get_mut(&self.number).map(change);
            state.touch(self.number);
            result
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let number = self.number;
        let held = self.inner.change(|state| {
            let gone = state.ended.is_some();
            let held = state.streams.get_mut(&number).map(|strand| {
                strand.abandon();
                strand.drop_input()
            });
            state.touch(number);
            if gone {
                state.remove(number);
            } else {
                state.settle(number);
            }
            held
        });
        self.inner.shared.budget.give(held.unwrap_or(0));
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.number.0)
    }
}

/// The state of a stream on this side.
pub(super) struct Strand {
    output: VecDeque<Bytes>,
    output_bytes: usize,
    /// How many bytes the other side still takes.
    credit: u32,
    /// No more is written by this side.
    finished: bool,
    end_sent: bool,
    input: VecDeque<Bytes>,
    /// Small pieces, copied together; after what is in `input`.
    small: BytesMut,
    /// How many bytes the other side may still send.
    allowance: u32,
    /// Read but not yet given back as credit.
    read: u32,
    /// Bytes that were read in all.
    carried: u64,
    /// Since the last credit the reader has once had nothing to read.
    kept_up: bool,
    /// By how much the window is wider than at first.
    widths: Vec<Loan>,
    end_received: bool,
    /// To be told to the other side.
    reset: Option<ErrorCode>,
    failed: Option<StreamEnd>,
    pub(super) abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    pub(super) window: u32,
    /// Whether it is among those that have something to write.
    pub(super) queued: bool,
}

impl Strand {
    pub(super) fn new(credit: u32, window: u32) -> Self {
        Self {
            output: VecDeque::new(),
            output_bytes: 0,
            credit,
            finished: false,
            end_sent: false,
            input: VecDeque::new(),
            small: BytesMut::new(),
            allowance: window,
            read: 0,
            carried: 0,
            kept_up: false,
            widths: Vec::new(),
            end_received: false,
            reset: None,
            failed: None,
            abandoned: false,
            reader: None,
            writer: None,
            window,
            queued: false,
        }
    }

    /// The other side takes more. More than anybody may give is an error.
    pub(super) fn credit(&mut self, bytes: u32) {
        match self.credit.checked_add(bytes) {
            Some(credit) if credit < WINDOW_BYTES_MAX => self.credit = credit,
            _ => self.reset(ErrorCode::Protocol, StreamEnd::Overrun),
        }
    }

    /// Whether these bytes may come; they are put away if so.
    pub(super) fn receive(&mut self, bytes: Bytes) -> Result<(), StreamEnd> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if self.end_received || length > self.allowance {
            self.reset(ErrorCode::Protocol, StreamEnd::Overrun);
            return Err(StreamEnd::Overrun);
        }
        self.allowance -= length;
        if bytes.len() < SMALL_BYTES {
            self.small.extend_from_slice(&bytes);
            return Ok(());
        }
        if !self.small.is_empty() {
            self.input.push_back(self.small.split().freeze());
        }
        // A piece that is kept keeps the whole buffer it was read into, which is its own when it is long. A shorter one goes as it is to
        // a reader that waits.
        let is_awaited = self.reader.is_some() && self.input.is_empty();
        let goes_as_it_is = is_awaited || bytes.len() >= LONG_BYTES;
        self.input.push_back(if goes_as_it_is { bytes } else { Bytes::copy_from_slice(&bytes) });
        Ok(())
    }

    /// The other side sends no more.
    pub(super) fn receive_end(&mut self) {
        self.end_received = true;
    }

    /// The other side has ended it in both directions.
    pub(super) fn receive_reset(&mut self, code: ErrorCode) {
        self.reset = None;
        self.fail(StreamEnd::Reset(code));
    }

    fn take_input(&mut self) -> Option<Bytes> {
        let bytes = self.input.pop_front();
        bytes.or_else(|| (!self.small.is_empty()).then(|| self.small.split().freeze()))
    }

    /// Notes what was read; tells whether there is credit to give: in halves of the window, so that small reads do not each
    /// cost a frame.
    fn consumed(&mut self, bytes: usize) -> bool {
        self.read += u32::try_from(bytes).unwrap_or(u32::MAX);
        self.carried += bytes as u64;
        self.has_credit_to_give()
    }

    /// By how many bytes the window should grow with the next credit. It doubles when the stream has carried several of it in all, and
    /// its reader keeps up now: then, over a long way, the window may be what keeps the other side from sending.
    pub(super) fn growth(&self) -> Option<usize> {
        let window = self.window as usize;
        let earned = self.carried >= (WIDER_AFTER * window) as u64;
        (self.kept_up && earned && 2 * window <= WIDEST_BYTES && self.has_credit_to_give()).then_some(window)
    }

    pub(super) fn widen(&mut self, loan: Loan) {
        let more = u32::try_from(loan.bytes).expect("at most `WIDEST_BYTES`");
        self.window += more;
        self.read += more;
        self.widths.push(loan);
    }

    fn has_credit_to_give(&self) -> bool {
        self.read >= self.window.div_ceil(2) && !self.end_received && self.failed.is_none()
    }

    /// Forgets what came and was not read; tells how many bytes that was.
    pub(super) fn drop_input(&mut self) -> usize {
        let bytes = self.input.iter().map(Bytes::len).sum::<usize>() + self.small.len();
        self.input.clear();
        self.small = BytesMut::new();
        bytes
    }

    fn push_output(&mut self, bytes: Bytes) {
        self.output_bytes += bytes.len();
        // Small ones go together: each is a frame, and costs more memory than it has bytes.
        if let Some(last) = self.output.back_mut().filter(|last| last.len() + bytes.len() <= SMALL_BYTES) {
            match std::mem::take(last).try_into_mut() {
                Ok(mut longer) => {
                    longer.extend_from_slice(&bytes);
                    *last = longer.freeze();
                    return;
                }
                Err(shared) => *last = shared,
            }
        }
        self.output.push_back(bytes);
    }

    pub(super) fn fail(&mut self, end: StreamEnd) {
        self.failed.get_or_insert(end);
        self.output.clear();
        self.output_bytes = 0;
    }

    /// Fails it here and, unless that is known there already, tells the other side.
    pub(super) fn reset(&mut self, code: ErrorCode, end: StreamEnd) {
        if self.failed.is_none() {
            self.fail(end);
            self.reset = Some(code);
        }
    }

    /// Nobody holds it any more. What was written before it was finished is still sent; then the other side is told that
    /// nothing of its own is read any more.
    fn abandon(&mut self) {
        self.abandoned = true;
        if !self.finished {
            self.reset(ErrorCode::Internal, StreamEnd::Local);
        }
    }

    /// Whether all was sent by one that has left, and the other side does not know that.
    fn is_to_be_let_go(&self) -> bool {
        self.abandoned && self.end_sent && !self.end_received && self.failed.is_none()
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Whether neither side has anything more to say on it.
    pub(super) fn is_quiet(&self) -> bool {
        self.reset.is_none() && (self.failed.is_some() || (self.end_sent && self.end_received))
    }

    /// Whether it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned && self.is_quiet()
    }

    pub(super) fn has_output(&self) -> bool {
        if self.failed.is_some() {
            return self.reset.is_some();
        }
        let data = self.credit > 0 && !self.output.is_empty();
        let end = self.finished && self.output.is_empty() && !self.end_sent;
        data || end || self.has_credit_to_give() || self.is_to_be_let_go()
    }

    /// The next piece to send; and who waited for room.
    pub(super) fn next_piece(&mut self) -> Option<Body> {
        if let Some(code) = self.reset.take() {
            return Some(Body::Reset(code));
        }
        if self.failed.is_some() {
            return None;
        }
        if self.has_credit_to_give() {
            let bytes = std::mem::take(&mut self.read);
            self.kept_up = false;
            self.allowance += bytes;
            return Some(Body::Credit(bytes));
        }
        if let Some(front) = self.output.front_mut()
            && self.credit > 0
        {
            let length = front.len().min(self.credit as usize);
            let bytes = front.split_to(length);
            if !front.has_remaining() {
                self.output.pop_front();
            }
            self.credit -= u32::try_from(length).unwrap_or(u32::MAX);
            self.output_bytes -= length;
            return Some(Body::Data(bytes));
        }
        if self.finished && self.output.is_empty() && !self.end_sent {
            self.end_sent = true;
            return Some(Body::End);
        }
        if self.is_to_be_let_go() {
            self.fail(StreamEnd::Local);
            return Some(Body::Reset(ErrorCode::Internal));
        }
        None
    }

    /// Who waits to write, if there is room now.
    pub(super) fn take_writer(&mut self) -> Option<Waker> {
        let room = self.output_bytes < AHEAD_BYTES || self.failed.is_some();
        room.then(|| self.writer.take()).flatten()
    }

    pub(super) fn take_reader(&mut self) -> Option<Waker> {
        self.reader.take()
    }

    pub(super) fn take_wakers(&mut self) -> [Option<Waker>; 2] {
        [self.reader.take(), self.writer.take()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Budget;
    use super::*;

    fn data(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn no_more_is_sent_than_the_other_side_takes() {
        let mut strand = Strand::new(10, 100);
        strand.push_output(data(25));
        assert_eq!(strand.next_piece(), Some(Body::Data(data(10))));
        assert_eq!(strand.next_piece(), None);
        assert!(!strand.has_output());
        strand.credit(7);
        assert_eq!(strand.next_piece(), Some(Body::Data(data(7))));
        strand.finished = true;
        strand.credit(100);
        assert_eq!(strand.next_piece(), Some(Body::Data(data(8))));
        assert_eq!(strand.next_piece(), Some(Body::End));
        assert_eq!(strand.next_piece(), None);
    }

    #[test]
    fn who_sends_more_than_it_may_is_reset() {
        let mut strand = Strand::new(0, 100);
        assert_eq!(strand.receive(data(100)), Ok(()));
        assert_eq!(strand.receive(data(1)), Err(StreamEnd::Overrun));
        assert_eq!(strand.next_piece(), Some(Body::Reset(ErrorCode::Protocol)));
        assert!(strand.is_quiet());
        let mut generous = Strand::new(1, 100);
        generous.credit(WINDOW_BYTES_MAX - 1);
        assert_eq!(generous.next_piece(), Some(Body::Reset(ErrorCode::Protocol)));
        let mut after_end = Strand::new(1, 100);
        after_end.receive_end();
        assert_eq!(after_end.receive(data(1)), Err(StreamEnd::Overrun));
    }

    #[test]
    fn what_was_written_before_the_end_is_sent_though_nobody_holds_the_stream() {
        let mut strand = Strand::new(10, 100);
        strand.push_output(data(15));
        strand.finished = true;
        strand.abandon();
        assert_eq!(strand.next_piece(), Some(Body::Data(data(10))));
        assert!(!strand.is_over() && !strand.has_output());
        strand.credit(10);
        assert_eq!(strand.next_piece(), Some(Body::Data(data(5))));
        assert_eq!(strand.next_piece(), Some(Body::End));
        assert!(strand.has_output() && !strand.is_over());
        assert_eq!(strand.next_piece(), Some(Body::Reset(ErrorCode::Internal)));
        assert!(strand.is_over());

        let mut both = Strand::new(10, 100);
        both.finished = true;
        both.receive_end();
        both.abandon();
        assert_eq!(both.next_piece(), Some(Body::End));
        assert!(both.is_over(), "there is nothing to be told");

        let mut early = Strand::new(10, 100);
        early.push_output(data(5));
        early.abandon();
        assert_eq!(early.next_piece(), Some(Body::Reset(ErrorCode::Internal)));
    }

    #[test]
    fn credit_is_given_back_in_halves_of_the_window() {
        let mut strand = Strand::new(0, 100);
        strand.receive(data(60)).unwrap();
        assert_eq!(strand.take_input().map(|bytes| bytes.len()), Some(60));
        assert!(!strand.consumed(49));
        assert!(strand.consumed(11));
        assert_eq!(strand.next_piece(), Some(Body::Credit(60)));
        assert_eq!(strand.receive(data(100)), Ok(()));
    }

    #[test]
    fn a_window_grows_while_its_reader_keeps_up() {
        let budget = Arc::new(Budget::new(3 << 20));
        let window = 1 << 20;
        let mut strand = Strand::new(0, window);
        let carry = |strand: &mut Strand, keeps_up: bool| {
            for _ in 0..2 {
                strand.receive(data(window as usize / 2)).unwrap();
            }
            for _ in 0..2 {
                let bytes = strand.take_input().unwrap();
                strand.consumed(bytes.len());
            }
            strand.kept_up = keeps_up;
            let loan = strand.growth().and_then(|more| budget.lend(more));
            loan.into_iter().for_each(|loan| strand.widen(loan));
            strand.next_piece()
        };
        for _ in 0..WIDER_AFTER - 1 {
            assert_eq!(carry(&mut strand, true), Some(Body::Credit(window)));
        }
        // It has earned it now, but the reader does not keep up; then it does.
        assert_eq!(carry(&mut strand, false), Some(Body::Credit(window)));
        assert_eq!(carry(&mut strand, true), Some(Body::Credit(2 * window)));
        assert_eq!((strand.window, budget.left()), (2 * window, 2 << 20));
        for _ in 0..2 * WIDER_AFTER {
            strand.carried += u64::from(window);
        }
        // As wide as it may be, or as the node has.
        assert_eq!(carry(&mut strand, true), Some(Body::Credit(3 * window)));
        assert_eq!((strand.window, budget.left()), (4 * window, 0));
        strand.carried += u64::from(window) * 1_000;
        strand.kept_up = true;
        strand.read = strand.window;
        assert_eq!(strand.growth(), None);
        drop(strand);
        assert_eq!(budget.left(), 3 << 20);
    }

    #[test]
    fn small_pieces_are_put_together_and_keep_their_order() {
        let mut strand = Strand::new(0, 1 << 20);
        for (byte, length) in [(1, 10), (2, 20), (3, SMALL_BYTES), (4, 5)] {
            strand.receive(Bytes::from(vec![byte; length])).unwrap();
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| strand.take_input()).map(|bytes| bytes.len()).collect();
        assert_eq!(lengths, [30, SMALL_BYTES, 5]);
    }
}

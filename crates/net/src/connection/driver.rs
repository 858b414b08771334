//! The task that owns a connection's socket: reads what comes, hands it on, writes what waits, keeps the times.
//!
//! It is one future and not a pair of tasks: a request that is answered at once is read, answered and written without another
//! task being woken.

use std::future::Future;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rnp::message::{GoodbyeAck, Ping, Pong, Priority, StreamAccepted, StreamOpen};
use rnp::stream::{Body, WINDOW_BYTES};
use rnp::{Envelope, ErrorCode, Fault, Flags, Frame, Limit, Message, Payload, Piece, StreamId};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsStream;

use super::state::{Phase, lane};
use super::stream::{LONG_BYTES, Stream, StreamEnd};
use super::{ANSWER_BYTES, ECHO_BYTES, Ended, Inner, SERVING_MAX, SERVING_VITAL_MAX, Shared};
use crate::identity::trust::Distrust;

/// What is gathered before it is written: one piece and what goes with it.
const WRITE_BYTES: usize = 64 << 10;
/// Less than this of a piece is not worth a write of its own.
const REST_BYTES: usize = 4 << 10;
/// Room for the next read: as little as a message needs, up to this when more keeps coming.
const READ_MIN_BYTES: usize = 4 << 10;
const READ_MAX_BYTES: usize = 64 << 10;
/// Room for a piece of bulk with its head.
const PIECE_ROOM_BYTES: usize = READ_MAX_BYTES + READ_MIN_BYTES;
/// What a connection may hold of an unfinished frame without asking the node's budget: more than two pieces, the last read
/// among them.
const FREE_INPUT_BYTES: usize = 256 << 10;
/// Rounds before others on this thread get their turn.
const ROUNDS: usize = 32;
/// How long the last words of a connection may take.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// Carries a connection from HELLO to its end. `input` is what came after HELLO already.
pub(crate) async fn run(inner: Arc<Inner>, stream: TlsStream<TcpStream>, input: BytesMut) {
    let now = Instant::now();
    let mut driver = Driver {
        stream,
        input,
        output: BytesMut::new(),
        tail: Bytes::new(),
        unflushed: false,
        read_bytes: READ_MIN_BYTES,
        is_bulk: false,
        budgeted: 0,
        timer: Box::pin(tokio::time::sleep_until(now)),
        begun: now,
        heard: now,
        busy: now,
        pinged: None,
        frame_since: None,
        write_since: None,
        last_words: None,
        finished: false,
        inner,
    };
    let reason = std::future::poll_fn(|cx| driver.poll(cx)).await;
    driver.finish(reason);
    driver.shut_down().await;
}

struct Driver {
    inner: Arc<Inner>,
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    output: BytesMut,
    /// The data of a long piece, to be written behind `output` without being copied there.
    tail: Bytes,
    /// Written, but kept back by TLS or the system.
    unflushed: bool,
    read_bytes: usize,
    /// The last frame was as long as a piece of bulk.
    is_bulk: bool,
    /// What the input holds of the node's budget.
    budgeted: usize,
    timer: Pin<Box<Sleep>>,
    begun: Instant,
    heard: Instant,
    /// When there was something else than pings.
    busy: Instant,
    /// The ping that has no answer yet.
    pinged: Option<(u64, Instant)>,
    /// Since when a frame is unfinished.
    frame_since: Option<Instant>,
    /// Since when bytes wait to be taken.
    write_since: Option<Instant>,
    /// Until when what is queued is still written.
    last_words: Option<Instant>,
    finished: bool,
}

impl Driver {
    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        for _ in 0..ROUNDS {
            let read = match self.poll_input(cx) {
                Ok(progress) => progress,
                Err(reason) => return self.give_up(reason, cx),
            };
            let written = match self.poll_output(cx) {
                Ok(progress) => progress,
                Err(reason) => return Poll::Ready(reason),
            };
            if !read && !written {
                return self.poll_times(cx);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends for a reason of ours; what is queued, and why, is still told.
    fn give_up(&mut self, reason: Ended, cx: &mut Context<'_>) -> Poll<Ended> {
        self.inner.lock().fail(reason);
        self.poll(cx)
    }

    // --- reading

    /// Reads and handles what is there. Whether there was anything.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        {
            let mut state = self.inner.lock();
            if state.phase == Phase::Ending || state.echo_bytes > ECHO_BYTES {
                // Woken when the echoes are written, which is this task's doing.
                state.driver = Some(cx.waker().clone());
                return Ok(false);
            }
        }
        // What came with HELLO, first.
        self.handle_frames(cx)?;
        let room = self.make_room();
        let read = pin!(self.stream.read_buf(&mut (&mut self.input).limit(room))).poll(cx);
        match read {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(error)) => return Err(Ended::Failed(error.to_string())),
            Poll::Ready(Ok(0)) => return Err(Ended::Closed),
            Poll::Ready(Ok(bytes)) => {
                self.heard = Instant::now();
                // More room when all of it was used, less when little was.
                let next = if bytes == room {
                    self.read_bytes * 2
                } else if bytes < room / 8 {
                    READ_MIN_BYTES
                } else {
                    self.read_bytes
                };
                self.read_bytes = next.clamp(READ_MIN_BYTES, READ_MAX_BYTES);
            }
        }
        self.handle_frames(cx)?;
        self.hold_input()?;
        Ok(true)
    }

    /// Makes room for the next read, and tells how much of it may be used. A piece of bulk is read up to its end and no further: it
    /// then is all that its buffer holds, and goes on without being copied.
    fn make_room(&mut self) -> usize {
        match Frame::lacks(&self.input) {
            // Most of a read has come of it, so that its length is more than a claim.
            Some(lacks) if self.input.len() >= READ_MIN_BYTES / 2 && lacks > 0 => {
                let room = lacks.min(READ_MAX_BYTES);
                self.is_bulk = lacks + self.input.len() >= READ_MAX_BYTES;
                self.input.reserve(room);
                room
            }
            _ if self.is_bulk => {
                // Another one like the last, most likely: room for all of it, once its beginning is there.
                self.is_bulk = false;
                self.input.reserve(PIECE_ROOM_BYTES);
                READ_MIN_BYTES
            }
            _ => {
                self.input.reserve(self.read_bytes);
                self.input.capacity() - self.input.len()
            }
        }
    }

    /// Accounts for an unfinished frame.
    fn hold_input(&mut self) -> Result<(), Ended> {
        if self.input.is_empty() {
            self.frame_since = None;
            if self.input.capacity() > READ_MAX_BYTES {
                self.input = BytesMut::new();
            }
        } else if self.frame_since.is_none() {
            self.frame_since = Some(self.heard);
        }
        let held = self.input.capacity().saturating_sub(FREE_INPUT_BYTES);
        let held = if self.input.len() > FREE_INPUT_BYTES { held } else { 0 };
        if held > self.budgeted {
            if !self.shared().budget.take(held - self.budgeted) {
                return Err(Ended::Full);
            }
        } else {
            self.shared().budget.give(self.budgeted - held);
        }
        self.budgeted = held;
        Ok(())
    }

    fn handle_frames(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        let limit = match self.inner.peer.certificate {
            Some(_) => self.inner.peer.purpose.limit(),
            None => Limit::Unauthenticated,
        };
        loop {
            let before = self.input.len();
            let frame = Frame::decode(&mut self.input, limit).map_err(|error| Ended::Protocol(error.to_string()))?;
            let Some(frame) = frame else { return Ok(()) };
            self.frame_since = None;
            // Its buffer has grown with it. Whoever keeps a piece that is read into it next would keep all of it.
            if self.input.is_empty() && before > PIECE_ROOM_BYTES {
                self.input = BytesMut::new();
            }
            match rnp::read(&frame) {
                Ok(Payload::Message(envelope)) => self.handle_message(frame.flags, envelope, cx)?,
                Ok(Payload::Piece(piece)) => self.handle_piece(piece)?,
                Err(refused) => {
                    let id = refused.id.unwrap_or_else(|| self.shared().ids.next());
                    self.echo(id, Flags::ANSWER, refused.fault.clone().into());
                    if refused.id.is_none() {
                        return Err(Ended::Protocol(refused.fault.message));
                    }
                }
            }
        }
    }

    fn handle_message(&mut self, flags: Flags, envelope: Envelope, cx: &mut Context<'_>) -> Result<(), Ended> {
        let Envelope { id, sender, message, .. } = envelope;
        if sender != self.inner.peer.node() {
            let fault = Fault::new(ErrorCode::AuthFailed, format!("the sender is not `{}`", self.inner.peer.node()));
            self.echo(id, Flags::ANSWER, fault.clone().into());
            return Err(Ended::Protocol(fault.message));
        }
        if flags == Flags::ANSWER {
            self.handle_answer(id, message);
            return Ok(());
        }
        let wants_answer = flags == Flags::WANTS_ANSWER;
        match message {
            Message::Ping(Ping {}) => {
                if wants_answer {
                    self.echo(id, Flags::ANSWER, Message::Pong(Pong {}));
                }
            }
            Message::Goodbye(_) => self.handle_goodbye(id),
            Message::Error(fault) => return Err(Ended::Told(fault)),
            Message::Hello(_) | Message::HelloAck(_) | Message::GoodbyeAck(_) | Message::Pong(_) => {
                let text = format!("`{}` is not said here", message.kind().name());
                self.echo(id, Flags::ANSWER, Fault::new(ErrorCode::Protocol, text).into());
            }
            Message::StreamOpen(open) if wants_answer => self.handle_open(id, open),
            message => self.serve(id, wants_answer, message, cx)?,
        }
        Ok(())
    }

    fn handle_answer(&mut self, id: u64, message: Message) {
        if self.pinged.is_some_and(|(pinged, _)| pinged == id) {
            self.pinged = None;
            return;
        }
        self.busy = self.heard;
        let mut state = self.inner.lock();
        if state.goodbye == Some(id) {
            state.fail(Ended::Goodbye);
            return;
        }
        // Of one that nobody waits for any more: passed over.
        let waiting = state.waiting.remove(&id);
        drop(state);
        if let Some(waiting) = waiting {
            let _ = waiting.send(message);
        }
    }

    fn handle_goodbye(&mut self, id: u64) {
        let until = self.heard + self.shared().timing.goodbye;
        let mut state = self.inner.lock();
        if state.phase != Phase::Ending {
            state.phase = Phase::Left { id, until };
        }
    }

    /// Lets the service answer. What it answers at once is queued at once; the rest becomes a task.
    fn serve(&mut self, id: u64, wants_answer: bool, message: Message, cx: &mut Context<'_>) -> Result<(), Ended> {
        let priority = message.kind().priority();
        let is_of_strangers = matches!(message, Message::JoinRequest(_) | Message::CertificateRecover(_));
        if self.inner.peer.certificate.is_none() && !is_of_strangers {
            let fault = Fault::new(ErrorCode::Unauthorized, "a machine without a certificate can only ask for one");
            self.echo(id, Flags::ANSWER, fault.clone().into());
            return Err(Ended::Protocol(fault.message));
        }
        self.busy = self.heard;
        if let Err(fault) = self.admit(priority) {
            if wants_answer {
                self.echo(id, Flags::ANSWER, fault.into());
            }
            return Ok(());
        }
        let mut answer = self.shared().service.answer(&self.inner.peer, message);
        match answer.as_mut().poll(cx) {
            // This task writes it next: nobody is to be woken.
            Poll::Ready(answer) => {
                let frame = serving_frame(&self.inner, id, wants_answer, answer);
                self.inner.lock().finish_serving(priority, frame);
            }
            Poll::Pending => {
                let inner = Arc::clone(&self.inner);
                tokio::spawn(async move {
                    let place = Place { inner: &inner, priority, taken: true };
                    let answer = answer.await;
                    place.pass_on();
                    let frame = serving_frame(&inner, id, wants_answer, answer);
                    inner.change(|state| state.finish_serving(priority, frame));
                });
            }
        }
        Ok(())
    }

    /// A place among the requests being served, or why there is none.
    fn admit(&self, priority: Priority) -> Result<(), Fault> {
        let mut state = self.inner.lock();
        let refusal = |text: &str| Fault::new(ErrorCode::ResourceExhausted, text).retry_after_ms(100);
        if matches!(state.phase, Phase::Leaving { .. }) {
            return Err(refusal("the connection is being closed"));
        }
        let most = [SERVING_VITAL_MAX, SERVING_MAX][lane(priority)];
        let serving = &mut state.serving[lane(priority)];
        if *serving >= most {
            return Err(refusal("too many requests of this connection are being answered"));
        }
        *serving += 1;
        if state.answer_bytes > ANSWER_BYTES {
            state.serving[lane(priority)] -= 1;
            return Err(refusal("too many answers of this connection are not read"));
        }
        Ok(())
    }

    fn handle_open(&mut self, id: u64, open: StreamOpen) {
        self.busy = self.heard;
        let number = StreamId(open.stream);
        let opened = {
            let mut state = self.inner.lock();
            match state.phase {
                Phase::Leaving { .. } => Err((ErrorCode::ResourceExhausted, "the connection is being closed")),
                _ if self.inner.peer.certificate.is_none() => {
                    Err((ErrorCode::Unauthorized, "a machine without a certificate can only ask for one"))
                }
                _ => state.open_theirs(number, open.window, WINDOW_BYTES),
            }
        };
        let taken = |()| {
            let stream = Stream::new(Arc::clone(&self.inner), number);
            let taken = self.shared().service.stream(&self.inner.peer, &open.service, open.body, stream);
            // Refused, the service has let go of it. It is not open there, so there is nothing to reset.
            taken.inspect_err(|_| drop(self.inner.lock().remove(number)))
        };
        let accepted = opened.map_err(|(code, text)| Fault::new(code, text)).and_then(taken);
        let answer = accepted.map_or_else(Message::Error, |()| StreamAccepted { window: WINDOW_BYTES }.into());
        self.echo(id, Flags::ANSWER, answer);
    }

    fn handle_piece(&mut self, piece: Piece) -> Result<(), Ended> {
        self.busy = self.heard;
        let Piece { stream: number, body } = piece;
        let mut wakers: [Option<Waker>; 2] = [None, None];
        let mut state = self.inner.lock();
        let was_opened = state.was_opened(number);
        let Some(strand) = state.streams.get_mut(&number) else {
            drop(state);
            if !was_opened && !matches!(body, Body::Reset(_)) {
                self.echo_piece(number, Body::Reset(ErrorCode::Protocol));
            }
            return Ok(());
        };
        match body {
            Body::Data(bytes) => {
                let length = bytes.len();
                if strand.abandoned || strand.is_failed() {
                    // Its reset is on its way, or it crossed ours.
                } else if !self.inner.shared.budget.take(length) {
                    strand.reset(ErrorCode::ResourceExhausted, StreamEnd::Full);
                } else if strand.receive(bytes).is_err() {
                    self.inner.shared.budget.give(length);
                }
            }
            Body::Credit(bytes) => strand.credit(bytes),
            Body::End => strand.receive_end(),
            Body::Reset(code) => strand.receive_reset(code),
        }
        wakers[0] = strand.take_reader();
        wakers[1] = strand.take_writer();
        state.touch(number);
        state.settle(number);
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        Ok(())
    }

    /// Says something by ourselves.
    fn echo(&self, id: u64, flags: Flags, message: Message) {
        let payload = self.shared().envelope(id, message).encode();
        if let Some(frame) = encode(flags, payload, self.inner.peer.purpose.limit()) {
            self.inner.lock().push_echo(frame);
        }
    }

    fn echo_piece(&self, stream: StreamId, body: Body) {
        if let Some(frame) = encode(Flags::NONE, Piece { stream, body }.encode(), Limit::Control) {
            self.inner.lock().push_echo(frame);
        }
    }

    // --- writing

    /// Writes what waits. Whether there was anything that could be written.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        let failed = |error: std::io::Error| Ended::Failed(error.to_string());
        let mut progress = false;
        loop {
            self.gather(cx);
            if self.is_all_written() {
                break;
            }
            let both = [IoSlice::new(&self.output), IoSlice::new(&self.tail)];
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &both).map_err(failed)? {
                Poll::Ready(bytes) => {
                    let of_output = bytes.min(self.output.len());
                    self.output.advance(of_output);
                    self.tail.advance(bytes - of_output);
                    self.unflushed = true;
                    self.write_since = None;
                    progress = true;
                }
                Poll::Pending => {
                    self.write_since.get_or_insert_with(Instant::now);
                    return Ok(progress);
                }
            }
            if self.output.is_empty() && self.output.capacity() > 4 * WRITE_BYTES {
                self.output = BytesMut::new();
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx).map_err(failed)? {
                Poll::Ready(()) => (self.unflushed, self.write_since) = (false, None),
                Poll::Pending => {
                    self.write_since.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(progress)
    }

    fn is_all_written(&self) -> bool {
        self.output.is_empty() && self.tail.is_empty()
    }

    /// Fills the output: messages first, then pieces of the streams in turn. Leaves the waker where there is nothing.
    fn gather(&mut self, cx: &mut Context<'_>) {
        // TLS takes as much as a piece at a time: the rest of one goes with the next.
        if self.output.is_empty() && self.tail.len() < REST_BYTES {
            self.output.extend_from_slice(&std::mem::take(&mut self.tail));
        }
        if self.output.len() >= WRITE_BYTES || !self.tail.is_empty() {
            return;
        }
        let mut wakers = Vec::new();
        let mut state = self.inner.lock();
        while self.output.len() < WRITE_BYTES && self.tail.is_empty() {
            if let Some(frame) = state.pop() {
                if self.output.is_empty() {
                    self.output = frame
                } else {
                    self.output.extend_from_slice(&frame)
                }
                continue;
            }
            if state.phase == Phase::Ending {
                break;
            }
            let Some(number) = state.ready.pop_front() else { break };
            state.widen(number, &self.inner.shared.widths);
            let Some(strand) = state.streams.get_mut(&number) else { continue };
            strand.queued = false;
            if let Some(body) = strand.next_piece() {
                wakers.extend(strand.take_writer());
                self.tail = Piece { stream: number, body }.put_frame(&mut self.output, LONG_BYTES);
            }
            state.touch(number);
            state.settle(number);
        }
        if let Phase::Left { id, .. } = state.phase
            && state.is_idle()
            && self.tail.is_empty()
        {
            let payload = self.inner.shared.envelope(id, Message::GoodbyeAck(GoodbyeAck {})).encode();
            if let Some(frame) = encode(Flags::ANSWER, payload, Limit::Unauthenticated) {
                self.output.extend_from_slice(&frame);
            }
            state.fail(Ended::Goodbye);
        }
        if self.is_all_written() {
            state.driver = Some(cx.waker().clone());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    // --- times

    /// Does what is due, and sleeps until the next thing is.
    fn poll_times(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let now = Instant::now();
            match self.due(now) {
                Due::End(reason) => return Poll::Ready(reason),
                Due::Again => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Due::At(next) => {
                    // Later is looked at when the present one is over: most are put off again and again.
                    if next < self.timer.deadline() || self.timer.is_elapsed() {
                        self.timer.as_mut().reset(next);
                    }
                }
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn due(&mut self, now: Instant) -> Due {
        let timing = self.shared().timing;
        if now.saturating_duration_since(self.heard) >= timing.keep_alive / 2 {
            self.trim();
        }
        let mut next = now + timing.keep_alive;
        let mut passed = |moment: Instant| {
            next = next.min(moment);
            moment <= now
        };
        let mut state = self.inner.lock();
        if state.phase == Phase::Ending {
            let reason = state.ended.clone().unwrap_or(Ended::Closed);
            let over = self.is_all_written() && !self.unflushed && !state.has_messages();
            let until = *self.last_words.get_or_insert(now + LAST_WORDS);
            return if over || passed(until) { Due::End(reason) } else { Due::At(next) };
        }
        let stalled = [self.write_since, self.frame_since].into_iter().flatten();
        if stalled.map(|since| since + timing.stall).any(&mut passed) {
            return Due::End(Ended::Stalled);
        }
        if let Phase::Leaving { until } | Phase::Left { until, .. } = state.phase
            && passed(until)
        {
            return Due::End(Ended::Goodbye);
        }
        match &self.inner.peer.certificate {
            None if passed(self.begun + timing.stranger) => return Due::End(Ended::Overstayed),
            Some(certificate) => {
                // By the wall clock, which may jump: looked at each time the timer fires.
                let left = certificate.not_after.since(self.inner.shared.clock.now());
                if left.is_zero() {
                    return Due::End(Ended::Distrust(Distrust::Expired(certificate.not_after)));
                }
                passed(now + left.min(timing.keep_alive));
            }
            None => {}
        }
        if let Some((_, since)) = self.pinged {
            if passed(since + timing.pong) {
                return Due::End(Ended::Silent);
            }
        } else if std::mem::take(&mut state.doubted) || passed(self.heard + timing.keep_alive) {
            drop(state);
            let id = self.shared().ids.next();
            self.pinged = Some((id, now));
            self.echo(id, Flags::WANTS_ANSWER, Message::Ping(Ping {}));
            return Due::Again;
        }
        if self.inner.opened && state.phase == Phase::Open {
            if !state.is_idle() {
                self.busy = now;
            } else if passed(self.busy + timing.idle) {
                drop(state);
                super::Connection::new(Arc::clone(&self.inner)).begin_goodbye("idle");
                return Due::Again;
            }
        }
        Due::At(next)
    }

    /// Gives back what a quiet connection does not need.
    fn trim(&mut self) {
        self.read_bytes = READ_MIN_BYTES;
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > READ_MIN_BYTES {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Tells everybody who waits.
    fn finish(&mut self, reason: Ended) {
        self.finished = true;
        tracing::debug!(peer = %self.inner.peer.node(), address = %self.inner.peer.address, %reason, "connection ended");
        // Before those who wait are woken: they ask for the reason.
        self.inner.ended.send_replace(Some(reason.clone()));
        let wakers = {
            let mut state = self.inner.lock();
            state.fail(reason);
            state.clear()
        };
        self.shared().budget.give(self.budgeted);
        self.inner.room.iter().for_each(|room| room.close());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Tells the other side that nothing more comes, and lets go of the socket.
    async fn shut_down(mut self) {
        let shutdown = tokio::io::AsyncWriteExt::shutdown(&mut self.stream);
        let _ = tokio::time::timeout(LAST_WORDS, shutdown).await;
    }
}

impl Drop for Driver {
    /// A service that panics takes its connection along, and a runtime that ends all of them: nobody is left waiting.
    fn drop(&mut self) {
        if !self.finished {
            self.finish(Ended::Failed("its task was ended".to_owned()));
        }
    }
}

enum Due {
    End(Ended),
    /// Something was queued.
    Again,
    At(Instant),
}

/// A request's place while a task answers it: given back should the task panic.
struct Place<'a> {
    inner: &'a Inner,
    priority: Priority,
    taken: bool,
}

impl Place<'_> {
    fn pass_on(mut self) {
        self.taken = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.inner.change(|state| state.serving[lane(self.priority)] -= 1);
        }
    }
}

/// What is to be written of an answer, if it was wanted.
fn serving_frame(inner: &Inner, id: u64, wants_answer: bool, answer: Result<Message, Fault>) -> Option<BytesMut> {
    wants_answer.then(|| encode_answer(inner, id, answer.unwrap_or_else(Message::Error))).flatten()
}

/// The answer, or that it is too long.
fn encode_answer(inner: &Inner, id: u64, answer: Message) -> Option<BytesMut> {
    let limit = inner.peer.purpose.limit();
    let kind = answer.kind().name();
    encode(Flags::ANSWER, inner.shared.envelope(id, answer).encode(), limit).or_else(|| {
        let fault = Fault::new(ErrorCode::Internal, format!("the answer, a `{kind}`, is too long for this connection"));
        encode(Flags::ANSWER, inner.shared.envelope(id, fault.into()).encode(), limit)
    })
}

fn encode(flags: Flags, payload: Bytes, limit: Limit) -> Option<BytesMut> {
    let mut frame = BytesMut::new();
    Frame::new(flags, payload).encode(limit, &mut frame).ok().map(|()| frame)
}

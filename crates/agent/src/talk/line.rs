//! One connection of a program: what it asks, answered in any order, and what it is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::talk::{Ask, Asked, LINE_MAX_BYTES, MESSAGE_MAX_BYTES, Said};
use model::{Code, Problem};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};

use super::pace::Pace;
use super::{Ear, Founder, Talks, Who};
use crate::clock::Clock;

/// Asks of one connection that are being answered; more wait in the socket.
const ASKS_MAX: usize = 16;
/// How long the last answer to who does not know the protocol may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Connections of programs outside of stars, at once.
pub(crate) const USERS_MAX: usize = 64;

/// Serves a connection to its end. Who may found a constellation is given a founder.
pub(crate) async fn serve(
    talks: Talks,
    who: Who,
    pace: Arc<Mutex<Pace>>,
    clock: Clock,
    founder: Option<Founder>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut leaving: watch::Receiver<bool>,
) {
    let (reader, writer) = split(stream);
    let (ear, heard) = Ear::new();
    let line = Arc::new(Line { talks, who, pace, clock, founder, ear });
    tokio::select! {
        () = read(&line, BufReader::new(reader)) => {}
        () = write(&line.ear, heard, writer) => {}
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
    line.talks.hang_up(&line.who, &line.ear);
}

struct Line {
    talks: Talks,
    who: Who,
    pace: Arc<Mutex<Pace>>,
    clock: Clock,
    founder: Option<Founder>,
    ear: Ear,
}

async fn read<R: AsyncRead + Unpin>(line: &Arc<Line>, mut reader: BufReader<R>) {
    let asks = Arc::new(Semaphore::new(ASKS_MAX));
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = AsyncReadExt::take(&mut reader, LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut text).await;
        match read {
            Ok(read) if read > 0 && text.ends_with(b"\n") => {}
            // Its end, or more than a line has: nothing after it could be understood.
            _ => return,
        }
        let asked: Asked = match serde_json::from_slice(&text) {
            Ok(asked) => asked,
            Err(error) => {
                let problem = Problem::new(Code::InvalidValue, format!("this is no line of this protocol: {error}"));
                line.answer(0, Err(problem)).await;
                line.said().await;
                return;
            }
        };
        let Ok(turn) = Arc::clone(&asks).acquire_owned().await else { return };
        let line = Arc::clone(line);
        tokio::spawn(async move {
            let result = line.perform(asked.ask).await;
            line.answer(asked.id, result).await;
            drop(turn);
        });
    }
}

async fn write<W: AsyncWrite + Unpin>(ear: &Ear, mut heard: mpsc::Receiver<Said>, mut writer: W) {
    while let Some(said) = heard.recv().await {
        if writer.write_all(&line_of(&said)).await.is_err() || writer.flush().await.is_err() {
            return;
        }
        ear.taken(&said);
    }
}

fn line_of(said: &impl Serialize) -> Vec<u8> {
    // Strings and numbers are always JSON.
    let mut text = serde_json::to_vec(said).unwrap_or_default();
    text.push(b'\n');
    text
}

impl Line {
    async fn answer(&self, id: u64, result: Result<String, Problem>) {
        self.ear.answer(Said::Answer { id, result }).await;
    }

    /// Waits until what was answered is on its way, unless it is not taken.
    async fn said(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        while self.ear.is_waiting() && Instant::now() < deadline {
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn perform(&self, ask: Ask) -> Result<String, Problem> {
        match ask {
            Ask::Nodes => {
                self.pay(1)?;
                self.talks.nodes(&self.who).await
            }
            Ask::Leader => {
                self.pay(1)?;
                self.talks.leader().await
            }
            Ask::Send { to, message } => self.post(Some(to), message).await,
            Ask::Broadcast { message } => self.post(None, message).await,
            Ask::Hear => {
                self.talks.listen(&self.who, &self.ear);
                Ok("null".to_owned())
            }
            Ask::Init { options } => match &self.founder {
                Some(founder) => founder.clone().found(options).await,
                None => {
                    let problem = Problem::new(Code::Forbidden, "a star founds no constellation");
                    Err(problem.help("`rads c init`, or a program outside of stars, does"))
                }
            },
        }
    }

    async fn post(&self, to: Option<String>, message: String) -> Result<String, Problem> {
        if message.len() > MESSAGE_MAX_BYTES {
            let message = format!("a message has at most {MESSAGE_MAX_BYTES} bytes as JSON, not {}", message.len());
            return Err(Problem::new(Code::InvalidValue, message));
        }
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&message) {
            return Err(Problem::new(Code::InvalidValue, format!("the message is no JSON: {error}")));
        }
        self.pay(1)?;
        let to = self.talks.addressees(&self.who, to).await?;
        // The first was paid for.
        if let Some(more) = to.len().checked_sub(1).filter(|more| *more > 0) {
            self.pay(more as u64)?;
        }
        Ok(self.talks.post(&self.who, to, message).await.to_string())
    }

    fn pay(&self, asks: u64) -> Result<(), Problem> {
        if self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now(), asks) {
            return Ok(());
        }
        let problem = Problem::new(Code::Unavailable, "this program asks too often; nothing was sent");
        Err(problem.help("try again in a moment"))
    }
}

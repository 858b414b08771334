//! `rads c cp`: files into a star and out of one. What is copied travels as a tar stream; both ends of it are
//! `isolate::parcel`, one of them within the star's walls.

use std::io::{self, Read, Write};
use std::time::Duration;

use api::exec::{EXIT, PAYLOAD_MAX, STDERR, STDIN, STDOUT, read_frame, write_frame};
use api::{Client, Copy, Ended};
use bytes::{Buf, Bytes};
use isolate::parcel::{LEFT_OUT, Naming, Summary, View, pack, unpack};
use model::{Code, Problem, StarId};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::find;
use super::logs::printable;
use crate::cli::{Cp, Form};
use crate::screen;

/// Pieces read ahead of whoever writes them.
const AHEAD: usize = 8;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Star {
        name: String,
        path: String,
    },
    Own(String),
    /// A tar archive by standard input or output.
    Stream,
}

impl End {
    fn read(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((name, path)) if !name.is_empty() && !name.contains(['/', '.']) => {
                Self::Star { name: name.to_owned(), path: path.to_owned() }
            }
            _ => Self::Own(text.to_owned()),
        }
    }
}

/// The star or service that a copy is about.
pub(crate) fn star_of(args: &Cp) -> Option<String> {
    [&args.from, &args.to].into_iter().find_map(|side| match End::read(side) {
        End::Star { name, .. } => Some(name),
        End::Own(_) | End::Stream => None,
    })
}

pub(crate) async fn cp(client: &Client, args: Cp, form: Form) -> Result<u8, Problem> {
    let usage = |message: &str, help: &str| Err(Problem::new(Code::Usage, message).help(help));
    let (name, path, own, inwards) = match (End::read(&args.from), End::read(&args.to)) {
        (End::Star { .. }, End::Star { .. }) => {
            return usage("both sides of the copy are in stars", "copy it here first, and from here to the other");
        }
        (End::Star { name, path }, own) => (name, path, own, false),
        (own, End::Star { name, path }) => (name, path, own, true),
        _ => return usage("neither side of the copy is in a star", "write a star's side as `hello-1:/path`"),
    };
    if path.is_empty() {
        return usage("the star's side has no path", "write it as `hello-1:/path`");
    }
    let star = find::running_star(client, &name).await?;
    let summary = match inwards {
        true => copy_in(client, star, path, &own).await?,
        false => copy_out(client, star, path, &own).await?,
    };
    match (form, &summary) {
        // What goes to standard output is the archive.
        (_, None) => {}
        (Form::Json, Some(Summary { files, bytes, left_out })) => {
            screen::json(&json!({"files": files, "bytes": bytes, "left_out": left_out}))?;
        }
        (Form::Text, Some(Summary { files, bytes, .. })) => {
            let what = screen::count(usize::try_from(*files).unwrap_or(usize::MAX), "file");
            screen::line(format!("copied {what}, {}", model::Bytes(*bytes)));
        }
    }
    let all = summary.is_none_or(|summary| summary.left_out == 0);
    Ok(u8::from(!all))
}

/// Nothing is known of an archive that was handed on as it came, unless something was left out.
async fn copy_out(client: &Client, star: StarId, path: String, to: &End) -> Result<Option<Summary>, Problem> {
    let connection = client.copy(star, &Copy::Out { path }).await?;
    let (mut from, mut input) = tokio::io::split(connection);
    // There is no input: an empty frame is its end. A short copy may have ended before it.
    let _ = write_frame(&mut input, STDIN, b"").await;
    let mut sink = Sink::to(to);
    let mut said = Said::default();
    let code = loop {
        match moves(next(&mut from)).await?? {
            (STDOUT, piece) => sink.take(piece).await?,
            (STDERR, piece) => said.hear(&piece),
            (EXIT, ended) => break exit_code(&ended)?,
            _ => {}
        }
    };
    said.end(code)?;
    let summary = sink.end().await?;
    Ok(match (summary, code) {
        (Some(summary), _) => Some(Summary { left_out: summary.left_out + u64::from(code == LEFT_OUT), ..summary }),
        (None, LEFT_OUT) => return Err(Problem::new(Code::FileUnreadable, "not everything was copied")),
        (None, _) => None,
    })
}

async fn copy_in(client: &Client, star: StarId, path: String, own: &End) -> Result<Option<Summary>, Problem> {
    let archive = *own == End::Stream;
    let (mut pieces, mut packing) = source(own)?;
    let (mut from, mut to) = tokio::io::split(client.copy(star, &Copy::In { path, archive }).await?);
    let send = async {
        while let Some(piece) = pieces.recv().await {
            for frame in piece.chunks(PAYLOAD_MAX) {
                if let Err(error) = moves(write_frame(&mut to, STDIN, frame)).await? {
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(()))
    };
    let receive = async {
        let (mut said, mut told) = (Said::default(), Vec::new());
        loop {
            match next(&mut from).await? {
                (STDOUT, piece) => told.extend_from_slice(&piece),
                (STDERR, piece) => said.hear(&piece),
                (EXIT, ended) => {
                    let code = exit_code(&ended)?;
                    said.end(code)?;
                    return Ok((code, told));
                }
                _ => {}
            }
        }
    };
    let mut receive = std::pin::pin!(receive);
    let sent: Result<io::Result<()>, Problem> = tokio::select! {
        // It ends before its input only when something is wrong there.
        ended = &mut receive => return ended.map(|(_, told): (i32, Vec<u8>)| summary_of(&told)),
        sent = send => sent,
    };
    let sent = sent?;
    // What cannot be sent is explained by how the other side ended.
    let left_out = match (&mut packing, sent) {
        (Some(packing), Ok(())) => packed(packing).await?.left_out,
        _ => 0,
    };
    // Only a whole stream is ended: one cut short is not taken for all there was.
    let _ = write_frame(&mut to, STDIN, b"").await;
    let (_, told) = moves(receive).await??;
    Ok(summary_of(&told).map(|summary| Summary { left_out: summary.left_out + left_out, ..summary }))
}

fn summary_of(told: &[u8]) -> Option<Summary> {
    Summary::read(&String::from_utf8_lossy(told))
}

async fn packed(packing: &mut Work) -> Result<Summary, Problem> {
    let packed = packing.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    packed.map_err(|reason| Problem::new(Code::FileUnreadable, reason).help("what came before it may be in the star"))
}

type Pieces = mpsc::Receiver<Bytes>;
/// A thread that packs or unpacks.
type Work = JoinHandle<Result<Summary, String>>;

/// What is to be sent, and for files the thread that packs them.
fn source(own: &End) -> Result<(Pieces, Option<Work>), Problem> {
    let (pieces, receive) = mpsc::channel(AHEAD);
    match own {
        End::Own(path) => {
            // Known before anything is asked of the star.
            std::fs::metadata(path)
                .map_err(|error| Problem::new(Code::FileUnreadable, format!("`{path}` cannot be read: {error}")))?;
            let path = path.clone();
            let pack = move || {
                let output = io::BufWriter::with_capacity(PAYLOAD_MAX, PieceWriter(pieces));
                pack(View::User, &path, output, &mut |note| screen::note(note))
            };
            Ok((receive, Some(spawn_blocking(pack))))
        }
        _ => {
            tokio::spawn(async move {
                let mut stdin = tokio::io::stdin();
                let mut buffer = vec![0; PAYLOAD_MAX];
                while let Ok(read @ 1..) = stdin.read(&mut buffer).await {
                    if pieces.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                        return;
                    }
                }
            });
            Ok((receive, None))
        }
    }
}

/// Where what comes out of a star goes.
enum Sink {
    Stdout(tokio::io::Stdout),
    Files { pieces: Option<mpsc::Sender<Bytes>>, unpacking: Work },
}

impl Sink {
    fn to(own: &End) -> Self {
        let End::Own(path) = own else { return Self::Stdout(tokio::io::stdout()) };
        let (pieces, receive) = mpsc::channel(AHEAD);
        let path = path.clone();
        let unpacking = spawn_blocking(move || {
            let input = PieceReader { pieces: receive, piece: Bytes::new() };
            unpack(View::User, &path, Naming::One, input, &mut |note| screen::note(printable(note)))
        });
        Self::Files { pieces: Some(pieces), unpacking }
    }

    async fn take(&mut self, piece: Bytes) -> Result<(), Problem> {
        match self {
            Self::Stdout(stdout) => {
                let written = stdout.write_all(&piece).await.and(stdout.flush().await);
                // Nobody reads on: there is nothing left to do.
                written.map_err(|error| unwritable(format!("the archive cannot be written: {error}")))
            }
            // Once its end is read the rest, which is padding, is not taken; a failure is told by `end`.
            Self::Files { pieces: Some(sender), .. } => {
                if sender.send(piece).await.is_err() {
                    let Self::Files { pieces, unpacking } = self else { return Ok(()) };
                    *pieces = None;
                    if let Ok(Err(reason)) = unpacking.await {
                        return Err(unwritable(reason));
                    }
                    *self = Self::Stdout(tokio::io::stdout());
                }
                Ok(())
            }
            Self::Files { pieces: None, .. } => Ok(()),
        }
    }

    async fn end(self) -> Result<Option<Summary>, Problem> {
        match self {
            Self::Stdout(_) => Ok(None),
            Self::Files { pieces, unpacking } => {
                drop(pieces);
                let unpacked = unpacking.await.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
                unpacked.map(Some).map_err(unwritable)
            }
        }
    }
}

fn unwritable(message: String) -> Problem {
    Problem::new(Code::FileUnwritable, message)
}

/// Pieces as something to read.
struct PieceReader {
    pieces: Pieces,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

struct PieceWriter(mpsc::Sender<Bytes>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the copy within the star says: notes, and last the reason why it failed.
#[derive(Default)]
struct Said {
    rest: String,
}

/// Longest text kept of what the other side says.
const SAID_MAX: usize = 16 << 10;

impl Said {
    fn hear(&mut self, piece: &[u8]) {
        self.rest.push_str(&String::from_utf8_lossy(piece));
        // The last line waits: it may be the reason.
        while let Some(end) = self.rest.find('\n').filter(|end| end + 1 < self.rest.len()) {
            screen::note(printable(&self.rest[..end]));
            self.rest.drain(..=end);
        }
        if self.rest.len() > SAID_MAX {
            self.rest.clear();
        }
    }

    fn end(&self, code: i32) -> Result<(), Problem> {
        let last = printable(self.rest.trim_end());
        match code {
            0 => Ok(()),
            LEFT_OUT => {
                screen::note(last);
                Ok(())
            }
            1 => Err(Problem::new(Code::FileUnreadable, format!("in the star: {last}"))),
            code if code > 128 => {
                let signal = model::star::signal_name(code - 128);
                let message = format!("the copy within the star was killed by {signal}");
                Err(Problem::new(Code::Unavailable, message)
                    .help("the star may have too little memory for it, or have ended"))
            }
            code => Err(Problem::new(Code::Internal, format!("the copy within the star ended with {code}: {last}"))),
        }
    }
}

/// A star that is paused, or that stops what comes into it, takes nothing and gives nothing.
const STILL_MAX: Duration = Duration::from_secs(20);

/// Waits for a step of the copy; one that does not come for long is an end of it.
async fn moves<T>(step: impl Future<Output = T>) -> Result<T, Problem> {
    timeout(STILL_MAX, step).await.map_err(|_| {
        let message = format!(
            "the copy has not moved for {} s: the star is paused, or keeps it from running",
            STILL_MAX.as_secs()
        );
        Problem::new(Code::Timeout, message)
            .help("what was copied before may be there; `rads c list` shows whether the star is paused")
    })
}

async fn next(from: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Bytes), Problem> {
    let ended = || Problem::new(Code::Unavailable, "the agent ended before the copy did");
    read_frame(from).await.map_err(broken)?.ok_or_else(ended)
}

fn exit_code(ended: &[u8]) -> Result<i32, Problem> {
    match serde_json::from_slice(ended) {
        Ok(Ended::Code(code)) => Ok(code),
        Ok(Ended::Problem(problem)) => Err(problem),
        Err(error) => Err(Problem::new(Code::Internal, format!("the copy's end cannot be read: {error}"))),
    }
}

fn broken(error: io::Error) -> Problem {
    Problem::new(Code::Unavailable, format!("the connection broke: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sides_are_told_apart() {
        let star = |name: &str, path: &str| End::Star { name: name.to_owned(), path: path.to_owned() };
        let check = |text: &str, expected: End| assert_eq!(End::read(text), expected, "{text}");
        check("hello-1:/data", star("hello-1", "/data"));
        check("hello:a:b", star("hello", "a:b"));
        check("-", End::Stream);
        for own in ["file", "./a:b", "/a:b", "../x:y", ":x", "dir/a:b", ""] {
            check(own, End::Own(own.to_owned()));
        }
    }
}

//! The logs of stars on other nodes, as part of one stream of lines: each is asked of its own node. A node that cannot be
//! asked is a line of its own for each of its stars, and while lines are followed it is asked again.

use std::time::Duration;

use api::{Caller, LogQuery, LogReader, LogRecord, StarView, TAIL_MAX};
use model::{Problem, WallTime};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::forward::Forward;
use crate::clock;

/// The lines that are there already come one after another; a pause of this length ends them.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest wait for them.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to ask a node that could not be asked.
const AGAIN: Duration = Duration::from_secs(1);
/// What a star said last has this long to come after it is known to have ended.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// How to ask for them.
#[derive(Clone)]
pub(crate) struct FarLogs {
    pub(crate) forward: Forward,
    pub(crate) caller: Caller,
    /// Of the whole stream; for each star its target is that star.
    pub(crate) query: LogQuery,
}

/// Where the lines of one star have come to.
pub(crate) struct Head {
    pub(crate) lines: Vec<LogRecord>,
    reader: Option<LogReader>,
}

impl FarLogs {
    /// The last lines of a star. Of one whose name another has since nothing is missed.
    pub(crate) async fn head(&self, star: &StarView, replaced: bool) -> Head {
        let mut lines = Vec::new();
        let read = async {
            let mut reader = self.open(star, self.query.tail, self.query.since).await?;
            loop {
                // Followed lines have no end: a pause is the end of what there was.
                let next =
                    if self.query.follow { timeout(PAUSE, reader.next()).await } else { Ok(reader.next().await) };
                match next {
                    Ok(Some(line)) => lines.push(line?),
                    Ok(None) => return Ok(None),
                    Err(_) => return Ok(Some(reader)),
                }
            }
        };
        let late = || Problem::new(model::Code::Timeout, "its node does not answer in time");
        let read: Result<Option<LogReader>, Problem> = timeout(HEAD_WITHIN, read).await.unwrap_or_else(|_| Err(late()));
        match read {
            Ok(reader) => Head { lines, reader },
            Err(problem) => {
                // It would stand in the place of what the next of its name says.
                if !replaced {
                    lines.push(missing(star, &problem));
                }
                Head { lines, reader: None }
            }
        }
    }

    /// Goes on with a star after its head, or from its first line.
    pub(crate) fn follow(&self, star: StarView, head: Option<Head>, lines: mpsc::Sender<LogRecord>) -> AbortHandle {
        let this = self.clone();
        let task = tokio::spawn(async move {
            let mut told = head.as_ref().is_some_and(|head| head.reader.is_none());
            let read = head.as_ref().filter(|head| head.reader.is_some());
            let mut last = read.and_then(|head| head.lines.last()).map(|line| line.at);
            let mut reader = head.and_then(|head| head.reader);
            loop {
                let problem = match reader.take() {
                    Some(mut reader) => match carry(&mut reader, &lines, &mut last).await {
                        Ok(()) => return,
                        Err(problem) => problem,
                    },
                    None => {
                        // What was read before is not told again.
                        let since = last.map(|at| WallTime(at.0 + 1)).or(this.query.since);
                        match this.open(&star, Some(TAIL_MAX), since).await {
                            Ok(opened) => {
                                told = false;
                                reader = Some(opened);
                                continue;
                            }
                            Err(problem) => problem,
                        }
                    }
                };
                if !std::mem::replace(&mut told, true) && lines.send(missing(&star, &problem)).await.is_err() {
                    return;
                }
                sleep(AGAIN).await;
            }
        });
        task.abort_handle()
    }

    async fn open(&self, star: &StarView, tail: Option<u32>, since: Option<WallTime>) -> Result<LogReader, Problem> {
        let client = self.forward.client(star.node, self.caller.clone()).await?;
        let target = Some(star.id.to_string());
        client.logs(&LogQuery { target, tail, since, previous: false, ..self.query.clone() }).await
    }
}

/// Ends the following of a star that has ended, once its last lines had their time.
pub(crate) fn end(following: AbortHandle) {
    tokio::spawn(async move {
        sleep(LAST_WORDS).await;
        following.abort();
    });
}

/// Passes lines on; fails when no more come, returns when nobody takes them.
async fn carry(
    reader: &mut LogReader,
    lines: &mpsc::Sender<LogRecord>,
    last: &mut Option<WallTime>,
) -> Result<(), Problem> {
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = lines.closed() => return Ok(()),
        };
        let ended = || Err(Problem::new(model::Code::Unavailable, "its node ended the log"));
        let line = next.unwrap_or_else(ended)?;
        *last = Some(line.at);
        if lines.send(line).await.is_err() {
            return Ok(());
        }
    }
}

/// In the place of lines that cannot be read.
fn missing(star: &StarView, problem: &Problem) -> LogRecord {
    LogRecord {
        star: star.id,
        name: star.name.clone(),
        at: clock::wall(),
        error: true,
        text: format!("rads: lines of this star are missing: {}", problem.message),
    }
}

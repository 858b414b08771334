//! `rads c watch`: the keys of what changes, as it does, until ^C. A connection that breaks is made again, and nothing is missed.

use std::time::Duration;

use api::{Client, WatchLine, WatchQuery};
use model::{Code, Problem};
use tokio::time::Instant;

use crate::cli::{Form, Watch};
use crate::screen;

/// How long an agent that has gone is looked for: another one starts within it.
const AGAIN_FOR: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(300);

pub(crate) async fn watch(client: &Client, args: Watch, form: Form) -> Result<u8, Problem> {
    tokio::select! {
        ended = follow(client, args, form) => ended.map(|()| 0),
        _ = tokio::signal::ctrl_c() => Ok(0),
    }
}

/// Ends only with a problem.
async fn follow(client: &Client, Watch { prefix, from }: Watch, form: Form) -> Result<(), Problem> {
    let mut query = WatchQuery { prefix, from };
    let mut gone: Option<Instant> = None;
    loop {
        let problem = match client.watch(&query).await {
            Ok(mut lines) => {
                gone = None;
                loop {
                    match lines.next().await {
                        Some(Ok(line)) => {
                            query.from = Some(line.index);
                            if let Some(problem) = line.problem {
                                break problem;
                            }
                            show(&line, form);
                        }
                        Some(Err(problem)) => break problem,
                        None => break Problem::new(Code::Unavailable, "the agent ended"),
                    }
                }
            }
            Err(problem) => problem,
        };
        // Where nothing was told yet there is nothing to resume, and everything else is for whoever asked.
        let may_resume = matches!(problem.code, Code::Unavailable | Code::NoAgent) && query.from.is_some();
        let since = *gone.get_or_insert_with(Instant::now);
        if !may_resume || since.elapsed() > AGAIN_FOR {
            return Err(problem);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn show(line: &WatchLine, form: Form) {
    match form {
        Form::Json => screen::line(serde_json::to_string(line).unwrap_or_default()),
        Form::Text => {
            let changed = line.changed.iter().map(|key| ("changed", key));
            let removed = line.removed.iter().map(|key| ("removed", key));
            changed.chain(removed).for_each(|(what, key)| screen::line(format!("{:>8}  {what}  {key}", line.index)));
        }
    }
}

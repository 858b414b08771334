//! `rads c audit`: who did what, and whether all of that is still what was written.

use api::{AuditView, AuthorView, Client, NodeView, OutcomeView, RecordView, WhoView};
use model::{Code, NodeId, Problem};
use serde::Serialize;
use state::AuditRecord;
use state::audit::{Broken, verify};

use crate::access::Audit;
use crate::cli::Form;
use crate::moment::{clock_time, now};
use crate::screen;

/// Longest wait for new records in one request.
const WAIT_MS: u64 = 30_000;

pub(crate) async fn audit(client: &Client, args: Audit, form: Form) -> Result<u8, Problem> {
    if args.verify {
        return verified(client, form).await;
    }
    let since = args.since.map(|since| since.moment(now()));
    let names = Names(client.nodes().await.unwrap_or_default());
    let (mut after, mut wait_ms) = (0, 0);
    let mut any = false;
    loop {
        let view = tokio::select! {
            view = client.audit(after, wait_ms) => view?,
            _ = tokio::signal::ctrl_c() => return Ok(0),
        };
        after = view.records.last().map_or(after, |record| record.number);
        for record in view.records.iter().filter(|record| since.is_none_or(|since| record.wall >= since)) {
            any = true;
            screen::line(match form {
                Form::Json => serde_json::to_string(record).unwrap_or_default(),
                Form::Text => line(record, &names),
            });
        }
        if view.more {
            continue;
        }
        if !args.follow {
            if !any && form == Form::Text {
                screen::note("nothing is recorded");
            }
            return Ok(0);
        }
        wait_ms = WAIT_MS;
    }
}

struct Names(Vec<NodeView>);

impl Names {
    fn of(&self, node: NodeId) -> String {
        let known = self.0.iter().find(|known| known.machine.id == node);
        known.map_or_else(|| node.to_string(), |known| known.machine.name.to_string())
    }
}

/// `2026-11-23 14:05:09  ann at 10.0.0.9 by a    scale service `web` to 3`.
fn line(record: &RecordView, names: &Names) -> String {
    let AuthorView { who, node, by_way_of, address } = &record.author;
    let mut by = match who {
        WhoView::User(uid) => format!("uid {uid}"),
        WhoView::Grant(name) => name.to_string(),
        WhoView::Agent => "the agent".to_owned(),
        WhoView::Stranger => "a stranger".to_owned(),
        WhoView::Star { service, .. } => format!("service {service}"),
    };
    if let Some(address) = address {
        by += &format!(" at {address}");
    }
    if let Some(way) = by_way_of {
        by += &format!(" by way of {}", names.of(*way));
    }
    if !names.0.is_empty() {
        by += &format!(" on {}", names.of(*node));
    }
    let what = &record.what;
    let what = match &record.outcome {
        OutcomeView::Done => what.clone(),
        OutcomeView::Refused(why) => format!("{what}: not possible: {why}"),
        OutcomeView::Denied(1) if *who == WhoView::Stranger => format!("{what}: denied"),
        OutcomeView::Denied(times) if *who == WhoView::Stranger => format!("{what}: denied {times} times"),
        OutcomeView::Denied(1) => format!("{what}: denied, may not {}", record.verb),
        OutcomeView::Denied(times) => format!("{what}: denied, may not {} (the last of {times})", record.verb),
    };
    format!("{}  {by}: {what}", clock_time(record.wall))
}

#[derive(Serialize)]
struct Verified {
    records: usize,
    first: u64,
    last: u64,
    /// By it the chain can be compared with that of another node, or of another day.
    head: Option<String>,
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<u64>,
}

async fn verified(client: &Client, form: Form) -> Result<u8, Problem> {
    let AuditView { before, records, mut more, .. } = client.audit(0, 0).await?;
    let mut records = records;
    while more {
        let next = client.audit(records.last().map_or(0, |record| record.number), 0).await?;
        more = next.more && !next.records.is_empty();
        records.extend(next.records);
    }
    let records: Vec<AuditRecord> = records.into_iter().map(Into::into).collect();
    let broken = verify(before, &records).err().map(|Broken { number }| number);
    let told = Verified {
        records: records.len(),
        first: records.first().map_or(0, |record| record.number),
        last: records.last().map_or(0, |record| record.number),
        head: records.last().map(|record| record.hash).or(before).map(|hash| hash.to_string()),
        holds: broken.is_none(),
        broken_at: broken,
    };
    match (form, broken) {
        (Form::Json, _) => screen::json(&told)?,
        (Form::Text, Some(_)) => {}
        (Form::Text, None) if records.is_empty() => screen::line("nothing is recorded"),
        (Form::Text, None) => screen::line(format!(
            "{} {}, from number {} to {}, head {}",
            screen::count(told.records, "record"),
            if told.records == 1 { "holds" } else { "hold" },
            told.first,
            told.last,
            told.head.as_deref().unwrap_or("-"),
        )),
    }
    match broken {
        None => Ok(0),
        Some(number) => Err(Problem::new(
            Code::DataCorrupt,
            format!("the audit log does not hold at record {number}: it is not what was written, or one before it is missing"),
        )
        .help("ask another node: the log of each is its own copy; those before this record hold")),
    }
}

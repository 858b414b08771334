//! `rads c backup` and `rads c recover`: what is left when machines are gone for good.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use agent::backup::{Head, Restored, Tail};
use agent::host;
use api::{ByteReader, Client};
use model::machine::said_of_volumes;
use model::{Bytes, Code, Problem};
use serde::Serialize;
use tokio::time::{Duration, Instant, sleep};

use super::{agent as own_agent, constellation};
use crate::cli::Form;
use crate::membership::{Backup, Recover, RestoreBackup};
use crate::moment::clock_time;
use crate::place::Place;
use crate::screen;

/// Longest wait for a restored node to lead: it elects itself, which takes a second.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(50);

pub(crate) async fn backup(place: &Place, what: Backup, form: Form) -> Result<u8, Problem> {
    match what {
        Backup::Save { file } => {
            let (client, _) = super::connect(place).await?;
            let head = save(&client, &file).await?;
            let size = fs::metadata(&file).map_or(0, |metadata| metadata.len());
            told(&file, &head, Some(size), form)
        }
        Backup::Show { file } => told(&file, &agent::backup::look(&file)?, None, form),
        Backup::Restore(args) => restore(place.folder()?, *args, form).await,
    }
}

#[derive(Serialize)]
struct Told<'a> {
    file: &'a Path,
    #[serde(flatten)]
    head: &'a Head,
}

fn told(file: &Path, head: &Head, saved: Option<u64>, form: Form) -> Result<u8, Problem> {
    if form == Form::Json {
        screen::json(&Told { file, head })?;
        return Ok(0);
    }
    let (apps, nodes) = (screen::count(head.apps as usize, "app"), screen::count(head.nodes as usize, "node"));
    let of = format!("constellation `{}` at index {}, {nodes}, {apps}", head.cluster, head.index);
    match saved {
        Some(size) => {
            screen::line(format!("`{}`: {of}, {}", file.display(), Bytes(size)));
            screen::note("note: whoever has this file can be a controller of it: keep it as you keep a key");
        }
        None => screen::line(format!(
            "`{}`: {of}, taken {} by rads {}",
            file.display(),
            clock_time(head.taken),
            head.program
        )),
    }
    Ok(0)
}

/// Writes beside the file first, so that under its name there is a whole backup or none.
async fn save(client: &Client, file: &Path) -> Result<Head, Problem> {
    if file.symlink_metadata().is_ok() {
        let message = format!("`{}` is there already", file.display());
        return Err(Problem::new(Code::AlreadyExists, message).help("give another name, or move it away"));
    }
    let backup = client.backup().await?;
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = async {
        take(backup, &part).await?;
        let head = agent::backup::look(&part)?;
        fs::rename(&part, file).map_err(|error| unwritable(file, &error))?;
        Ok(head)
    };
    let saved = saved.await;
    if saved.is_err() {
        // What is there of it is no backup.
        let _ = fs::remove_file(&part);
    }
    saved
}

async fn take(mut backup: ByteReader, part: &Path) -> Result<(), Problem> {
    let failed = |error: io::Error| unwritable(part, &error);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).map_err(failed)?;
    while let Some(bytes) = backup.next().await {
        out.write_all(&bytes?).map_err(failed)?;
    }
    out.sync_all().map_err(failed)
}

fn unwritable(file: &Path, error: &io::Error) -> Problem {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => Code::DiskFull,
        _ => Code::FileUnwritable,
    };
    Problem::new(code, format!("cannot write `{}`: {error}", file.display()))
}

async fn restore(data_dir: &Path, args: RestoreBackup, form: Form) -> Result<u8, Problem> {
    let me = constellation::introduction(args.me, host::own_address)?;
    let address = me.advertise.clone();
    let restored = agent::backup::restore(data_dir, &args.file, me, args.force).await?;
    let (client, _, _) = own_agent::find_or_start(data_dir).await.map_err(Problem::after_changes)?;
    until_it_leads(&client).await.map_err(Problem::after_changes)?;
    match form {
        Form::Json => screen::json(&restored)?,
        Form::Text => {
            let Restored { became, left, given_up } = restored;
            screen::line(format!(
                "constellation `{}` is back; this machine is its node `{}`, {}",
                became.cluster, became.name, became.role
            ));
            screen::line(format!(
                "{} of old have left it: end what still runs of them, and let them join again from empty data folders",
                screen::count(left.len(), "node")
            ));
            if let Some(said) = said_of_volumes(&given_up) {
                screen::line(format!("not in the backup: {said}; whoever names one begins with an empty one"));
            }
            if let Some(invitation) = &became.token {
                constellation::invite(invitation, &address);
            }
        }
    }
    Ok(0)
}

/// Waits until the one node there is leads.
async fn until_it_leads(client: &Client) -> Result<(), Problem> {
    let deadline = Instant::now() + LEAD_TIMEOUT;
    loop {
        let nodes = client.nodes().await?;
        if nodes.iter().any(|node| node.answers && node.leads) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let message = format!("the restored node does not lead after {} s", LEAD_TIMEOUT.as_secs());
            return Err(Problem::new(Code::Timeout, message).help("see `agent.log` in its data folder"));
        }
        sleep(STEP).await;
    }
}

#[derive(Serialize)]
struct Recovered {
    index: u64,
    voters_before: Vec<String>,
    uncertain: u64,
}

pub(crate) fn recover(data_dir: &Path, args: &Recover, form: Form) -> Result<u8, Problem> {
    let running = |problem: Problem| match problem.code {
        Code::AgentRunning => problem.help("end the agent first: `rads c shutdown --keep-stars`"),
        _ => problem,
    };
    if !args.yes {
        let Tail { term, index, voters } = agent::backup::log_tail(data_dir).map_err(running)?;
        let voters = screen::count(voters.len(), "voter");
        let message = format!(
            "this makes the controller here the only one that keeps the log, of {voters}, and cannot be undone; its log ends in \
             term {term} at index {index}"
        );
        return Err(Problem::new(Code::Usage, message).help(
            "when a majority of the others is gone for good, look at this on each controller that is left, and add `--yes` \
             where the term is the highest, and of these the index",
        ));
    }
    let alone = agent::backup::become_only_voter(data_dir).map_err(running)?;
    if form == Form::Json {
        let voters_before = alone.voters.iter().map(ToString::to_string).collect();
        screen::json(&Recovered { index: alone.index, voters_before, uncertain: alone.uncertain })?;
        return Ok(0);
    }
    screen::line(format!("this controller keeps the log alone from index {} on", alone.index));
    if alone.uncertain > 0 {
        let (entries, hold) = match alone.uncertain {
            1 => ("entry".to_owned(), "it holds"),
            more => (format!("{more} entries"), "they hold"),
        };
        screen::line(format!("the last {entries} of it may or may not have been acknowledged; {hold} now"));
    }
    screen::line(
        "start the agent (`rads c agent`), then take the other controllers of old out (`rads c remove NODE --force`): they must not come\n\
         back with the data folders they had",
    );
    Ok(0)
}

//! A backup: what a new first node needs to be what the constellation was. The state, the keys that open its sealed parts, and
//! the files of what runs. Volumes and logs are not in it: they are large, and each lies on its node.
//!
//! Restored, every node of old has left: what is still out there knows nothing of this, and is believed no more.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Became, ByteStream, Invitation};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::{
    BundleId, BundleManifest, Code, ContentHash, Name, NodeFacts, NodeId, NodeRole, Problem, Standing, VolumeThere,
    WallTime,
};
use net::identity::request::CheckedRequest;
use net::identity::token::TOKEN_LIFE;
use net::identity::trust::Distrust;
use net::identity::{KeyUse, NodeKey, Token};
use net::tls::{Belief, SystemClock};
use net::{ConnectError, Timing, connect_as_stranger};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use state::{CertificateRecord, Change, Command, State, apply};
use store::backup::{Reader, Writer};
use store::{Bundles, DataDir};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::disk::OnDisk;
use super::entry::{became, ports_are_free};
use super::found::FIRST_USES;
use super::home::{Home, Key, ring};
use super::join::Machine;
use super::roads::resolve;
use super::start::log_folder;
use super::{Shared, home, security};
use crate::beside::beside;
use crate::clock;

/// Kinds of sections. A released one keeps its meaning.
const HEAD: u8 = 1;
const STATE: u8 = 2;
const KEYS: u8 = 3;
const MANIFEST: u8 = 4;
const CONTENT: u8 = 5;

/// What a backup is of; its first section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub cluster: Name,
    /// The index of the state in it.
    pub index: u64,
    pub taken: WallTime,
    /// The version of the program that took it.
    pub program: String,
    pub apps: u64,
    pub nodes: u64,
}

#[derive(Serialize, Deserialize)]
struct Keys {
    gossip: Vec<Key>,
    unsealing: Vec<Key>,
}

/// Writes a backup of a state.
///
/// # Errors
/// `Conflict` on a worker, which has no keys; those of the output.
pub(crate) fn save<W: Write>(
    out: W,
    home: &Home,
    state: &State,
    bundles: &Bundles,
    taken: WallTime,
) -> Result<W, Problem> {
    let (cluster, index) = (home.cluster.clone(), state.index);
    let nodes = state.nodes.values().filter(|record| record.standing != Standing::Left).count() as u64;
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let head = Head { cluster, index, taken, program, apps: state.apps.len() as u64, nodes };
    let keys = Keys { gossip: home.gossip.clone(), unsealing: home.unsealing.clone() };
    let mut writer = Writer::new(out).map_err(unwritten)?;
    for (kind, bytes) in [(HEAD, encode(&head)?), (STATE, encode(state)?), (KEYS, encode(&keys)?)] {
        writer.section(kind, &bytes).map_err(unwritten)?;
    }
    let mut contents = BTreeSet::new();
    for bundle in wanted(state) {
        let missing = || missing(&bundle);
        let manifest = bundles.manifest(&bundle)?.ok_or_else(missing)?;
        for file in manifest.files.values() {
            if !contents.insert(file.content) {
                continue;
            }
            let (mut content, length) = bundles.content(&file.content)?.ok_or_else(missing)?;
            let mut bytes = Vec::with_capacity(32 + length as usize);
            bytes.extend(file.content.0);
            content.read_to_end(&mut bytes).map_err(unwritten)?;
            writer.section(CONTENT, &bytes).map_err(unwritten)?;
        }
        // After its files, so that it can be unpacked as it is read.
        writer.section(MANIFEST, &encode(&manifest)?).map_err(unwritten)?;
    }
    writer.finish().map_err(unwritten)
}

/// Bytes gathered before they are passed on.
const PART_BYTES: usize = 256 << 10;
/// Parts on their way to a reader that is slower than the disk.
const PARTS_MAX: usize = 4;

/// A backup of the state as it is now, in parts.
///
/// # Errors
/// On a worker, without a leader, and when files of an app are not here: before anything is sent.
pub(crate) async fn stream(shared: &Shared, data_dir: PathBuf, bundles: Arc<Bundles>) -> Result<ByteStream, Problem> {
    let home = beside(move || Home::read(&data_dir)).await?.ok_or_else(node::roster::alone)?;
    may_save(&home)?;
    let state = shared.look_now(State::clone).await?;
    let here = Arc::clone(&bundles);
    let state = beside(move || wanted(&state).into_iter().try_for_each(|id| held(&here, &id)).map(|()| state)).await?;
    let (parts, stream) = mpsc::channel(PARTS_MAX);
    let taken = clock::wall();
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PART_BYTES, Parts(parts.clone()));
        if let Err(problem) = save(out, &home, &state, &bundles, taken) {
            // Nobody may be reading any more.
            let _ = parts.blocking_send(Err(problem));
        }
    });
    let next = |mut stream: mpsc::Receiver<_>| async move { stream.recv().await.map(|part| (part, stream)) };
    Ok(Box::pin(futures_util::stream::unfold(stream, next)))
}

/// What is written here goes to who reads the backup.
struct Parts(mpsc::Sender<Result<Bytes, Problem>>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(part)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wanted(state: &State) -> BTreeSet<BundleId> {
    state.services.values().map(|service| service.spec.template.bundle).collect()
}

fn held(bundles: &Bundles, bundle: &BundleId) -> Result<(), Problem> {
    match bundles.keep(bundle) {
        true => Ok(()),
        false => Err(missing(bundle)),
    }
}

fn missing(bundle: &BundleId) -> Problem {
    Problem::new(Code::BundleMissing, format!("bundle `{bundle}` is not on this node"))
        .help("take the backup on a node where the app was brought up or runs")
}

/// Refuses to begin on a worker, before anything is written.
pub(crate) fn may_save(home: &Home) -> Result<(), Problem> {
    if home.role == NodeRole::Controller {
        return Ok(());
    }
    let problem =
        Problem::new(Code::Conflict, format!("node `{}` is a worker and cannot open what is sealed", home.name));
    Err(problem.help("take the backup on a controller; `rads c nodes` tells which they are"))
}

/// Checks a file as a whole and tells what it is of.
///
/// # Errors
/// As [`store::backup::Reader::open`].
pub fn look(file: &Path) -> Result<Head, Problem> {
    let mut reader = Reader::open(file)?;
    match reader.next_section()? {
        Some((HEAD, bytes)) => decode(file, &bytes),
        _ => Err(corrupt(file, "it does not begin with what it is of")),
    }
}

/// What came of a backup.
#[derive(Serialize)]
pub struct Restored {
    #[serde(flatten)]
    pub became: Became,
    /// The nodes that were of the constellation when it was taken.
    pub left: Vec<Name>,
    /// What lay on them and is not in it.
    pub given_up: Vec<VolumeThere>,
}

/// Makes an empty data folder that of the first node of a constellation, which is what the one in the backup was. Its agent is
/// started by the caller.
///
/// # Errors
/// `Conflict` while controllers of old answer, unless it is forced. Nothing is left behind then.
pub(crate) async fn restore(
    data_dir: &Path,
    file: &Path,
    machine: Machine,
    facts: &NodeFacts,
    force: bool,
) -> Result<Restored, Problem> {
    check_empty(data_dir)?;
    let before = state_in(file)?;
    if !force {
        check_gone(&before).await?;
    }
    let there = || before.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
    let left = there().map(|(_, record)| record.name.clone()).collect();
    let given_up = there().flat_map(|(node, _)| before.volumes_on(*node)).collect();
    let became = make(data_dir, file, machine, facts, clock::wall())?;
    Ok(Restored { became, left, given_up })
}

fn state_in(file: &Path) -> Result<State, Problem> {
    let mut reader = Reader::open(file)?;
    while let Some((kind, bytes)) = reader.next_section()? {
        if kind == STATE {
            return decode(file, &bytes);
        }
    }
    Err(corrupt(file, "the state is missing"))
}

/// Longest wait for who may be there still.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Refuses to do what is for a constellation that is gone. Workers that are left are none: they change nothing.
async fn check_gone(state: &State) -> Result<(), Problem> {
    let trust = Arc::new(security::trust(state)?);
    let controllers =
        state.nodes.values().filter(|record| record.role == NodeRole::Controller && record.standing != Standing::Left);
    let asked = controllers.map(|record| async {
        let clock = Arc::new(SystemClock);
        let (cluster, belief) = (trust.cluster().clone(), Belief::Trust(Arc::clone(&trust)));
        let called = async {
            let address = resolve(&record.address).await.ok()?;
            match connect_as_stranger(address, &cluster, belief, clock, Timing::DEFAULT).await {
                Ok(connection) => {
                    connection.abort();
                    Some(())
                }
                // It is one of them, whatever is wrong with its certificate or with this clock.
                Err(ConnectError::Hello { .. }) => Some(()),
                Err(ConnectError::Distrust { reason: Distrust::Expired(_) | Distrust::NotYetValid(_), .. }) => Some(()),
                Err(_) => None,
            }
        };
        timeout(ANSWERS_WITHIN, called).await.ok()??;
        Some((record.name.clone(), record.address.clone()))
    });
    let answered = asked.collect::<FuturesUnordered<_>>().filter_map(std::future::ready).next().await;
    let Some((name, address)) = answered else { return Ok(()) };
    let cluster = trust.cluster();
    let message = format!("constellation `{cluster}` is not gone: its controller `{name}` answers at `{address}`");
    Err(Problem::new(Code::Conflict, message).help(
        "what runs there goes on beside what is restored: end it with `rads c shutdown` on each machine; one that lost its \
         majority goes on with `rads c recover`; `--force` restores in any case",
    ))
}

fn check_empty(data_dir: &Path) -> Result<(), Problem> {
    let has_any = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            let message = format!("cannot read the data folder `{}`: {error}", data_dir.display());
            return Err(Problem::new(Code::DataUnwritable, message));
        }
    };
    if has_any {
        let message = format!("the data folder `{}` is not empty", data_dir.display());
        return Err(Problem::new(Code::Conflict, message)
            .help("restore into another one with `--data-dir`, or move this one away first"));
    }
    Ok(())
}

fn make(data_dir: &Path, file: &Path, machine: Machine, facts: &NodeFacts, now: WallTime) -> Result<Became, Problem> {
    // All of it is checked before anything is made.
    let mut reader = Reader::open(file)?;
    // Somebody may have begun something there meanwhile.
    check_empty(data_dir)?;
    let made = build(data_dir, file, &mut reader, machine, facts, now);
    if made.as_ref().is_err_and(|problem| problem.code != Code::AgentRunning) {
        // It was empty before, and nobody but this process was there.
        let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
        entries.for_each(|entry| drop(fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()))));
    }
    made
}

fn build(
    data_dir: &Path,
    file: &Path,
    reader: &mut Reader,
    machine: Machine,
    facts: &NodeFacts,
    now: WallTime,
) -> Result<Became, Problem> {
    ports_are_free(machine.listen)?;
    let folder = DataDir::open(data_dir)?;
    let bundles = Bundles::new(folder.path())?;
    let (mut state, mut keys) = (None, None);
    while let Some((kind, bytes)) = reader.next_section()? {
        match kind {
            HEAD => drop(decode::<Head>(file, &bytes)?),
            STATE => state = Some(decode::<State>(file, &bytes)?),
            KEYS => keys = Some(decode::<Keys>(file, &bytes)?),
            MANIFEST => drop(bundles.commit(&decode::<BundleManifest>(file, &bytes)?)?),
            CONTENT => {
                let (hash, content) =
                    bytes.split_first_chunk::<32>().ok_or_else(|| corrupt(file, "a file in it has no name"))?;
                bundles.put_blob(&ContentHash(*hash), content)?;
            }
            _ => return Err(corrupt(file, &format!("it has a section of kind {kind}, which is not known"))),
        }
    }
    let (Some(state), Some(keys)) = (state, keys) else {
        return Err(corrupt(file, "the state or its keys are missing"));
    };
    let (became, home, state) = begin_anew(state, keys, machine, facts, now)?;
    let mut disk = OnDisk::open(&log_folder(folder.path()))?;
    consensus::found(&mut disk, home.node, &state)?;
    home.write(folder.path())?;
    Ok(became)
}

/// The state with a new first node in it, and that node's home, with a token for others. Every other node has left.
fn begin_anew(
    mut state: State,
    keys: Keys,
    machine: Machine,
    facts: &NodeFacts,
    now: WallTime,
) -> Result<(Became, Home, State), Problem> {
    let cluster = state.cluster.clone().ok_or_else(|| {
        Problem::new(Code::DataCorrupt, "the state of the backup is of no constellation").help("nothing was changed")
    })?;
    let there = state.nodes.iter().filter(|(_, record)| record.standing != Standing::Left);
    for node in there.map(|(node, _)| *node).collect::<Vec<_>>() {
        write(&mut state, &Command::RemoveNode { node, wall: now })?;
    }
    let unsealing = ring(&keys.unsealing)?;
    let known = security::of(&state)?;
    let (authority, lifetime) = security::issuer(known, &unsealing)?;
    let authorities = security::authorities(known)?;
    // It is the first to come in by it, as whoever follows.
    let (token, ticket) = Token::generate(&cluster, authority.pin(), NodeRole::Controller, FIRST_USES, TOKEN_LIFE, now);
    write(&mut state, &Command::AddTicket { ticket: ticket.clone(), wall: now })?;
    let Machine { name, listen, advertise, described, api, discoverable } = machine;
    let node = NodeId(state.index + 1);
    write(
        &mut state,
        &Command::AdmitNode {
            name: name.clone(),
            role: NodeRole::Controller,
            address: advertise.clone(),
            facts: Box::new(facts.clone()),
            wall: now,
            ticket: Some(ticket.hash),
        },
    )?;
    let key = NodeKey::generate().map_err(internal)?;
    let csr = key.request().map_err(internal)?;
    let request = CheckedRequest::read(&csr).map_err(internal)?;
    let subject = model::NodeIdentity { cluster: cluster.clone(), role: NodeRole::Controller, node };
    let issued = authority.issue(&request, &subject, lifetime, now).map_err(internal)?;
    let by = security::record(&authority, &unsealing.for_use(KeyUse::Authority))?.id;
    let certificate =
        CertificateRecord { serial: issued.serial, not_after: issued.not_after, authority: by, used: false };
    write(&mut state, &Command::NoteCertificate { node, certificate, by: None, wall: now })?;
    write(&mut state, &Command::UseCertificate { node, serial: issued.serial, wall: now })?;
    let home = Home {
        cluster,
        node,
        name,
        role: NodeRole::Controller,
        listen,
        advertise,
        described,
        key: ByteBuf::from(key.to_pkcs8().to_vec()),
        chain: issued.chain.iter().map(|der| ByteBuf::from(der.to_vec())).collect(),
        authorities: authorities.into_iter().map(|sealed| ByteBuf::from(sealed.certificate.to_vec())).collect(),
        gossip: keys.gossip,
        unsealing: keys.unsealing,
        seeds: Vec::new(),
        api,
        discoverable,
        has_log: true,
    };
    let uses = ticket.uses_max - 1;
    let invitation = Invitation { token: token.reveal().to_string(), role: ticket.role, uses, expires: ticket.expires };
    Ok((Became { token: Some(invitation), ..became(&home) }, home, state))
}

fn write(state: &mut State, command: &Command) -> Result<(), Problem> {
    let index = state.index + 1;
    let refused = apply(state, index, command).into_iter().find_map(|change| match change {
        Change::Refused { problem } => Some(problem),
        _ => None,
    });
    refused.map_or(Ok(()), Err)
}

/// Makes the node of a data folder whose agent does not run the only voter of its constellation.
///
/// # Errors
/// `AgentRunning`; `Conflict` where no controller is. Nothing is changed then.
pub fn become_only_voter(data_dir: &Path) -> Result<consensus::Alone, Problem> {
    with_log(data_dir, consensus::become_only_voter)
}

/// How far the log goes that a controller has whose agent does not run.
///
/// # Errors
/// As [`become_only_voter`].
pub fn log_tail(data_dir: &Path) -> Result<consensus::Tail, Problem> {
    with_log(data_dir, |disk, _| consensus::tail(disk))
}

fn with_log<T>(data_dir: &Path, does: impl FnOnce(&mut OnDisk, NodeId) -> Result<T, Problem>) -> Result<T, Problem> {
    let folder = DataDir::open(data_dir)?;
    let home = Home::read(folder.path())?.ok_or_else(node::roster::alone)?;
    if home.role != NodeRole::Controller {
        let message = format!("node `{}` is a worker and has no part of the log", home.name);
        return Err(Problem::new(Code::Conflict, message).help("do it on a controller that is left"));
    }
    let log = log_folder(folder.path());
    if !home::folder(folder.path()).join("log").exists() {
        return Err(Problem::new(Code::NotFound, "this node has no part of the shared log"));
    }
    does(&mut OnDisk::open(&log)?, home.node)
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    rmp_serde::to_vec_named(value).map_err(internal)
}

fn decode<T: for<'de> Deserialize<'de>>(file: &Path, bytes: &[u8]) -> Result<T, Problem> {
    rmp_serde::from_slice(bytes).map_err(|error| corrupt(file, &error.to_string()))
}

fn corrupt(file: &Path, what: &str) -> Problem {
    Problem::new(Code::DataCorrupt, format!("`{}` cannot be used: {what}", file.display())).help("nothing was changed")
}

fn unwritten(error: io::Error) -> Problem {
    Problem::new(Code::Unavailable, format!("the backup was not finished: {error}"))
}

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

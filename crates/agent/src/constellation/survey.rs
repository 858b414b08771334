//! How the other nodes are reached from here, and how far apart the clocks are: for whoever looks for what is wrong.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api::{Neighbour, Survey};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use model::{Code, Name, NodeId, Problem, Standing};
use net::{Purpose, Stream};
use rnp::Fault;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::entry::Standpoint;
use super::roads::Roads;
use crate::clock;

pub(crate) const CLOCK: &str = "node.clock";

/// Longest wait for a connection, and for an answer on it.
const WITHIN: Duration = Duration::from_secs(2);
/// Nodes that are tried at the same time: a thousand, of which none answers, take half a minute.
const AT_ONCE: usize = 128;
/// Times that a clock is read; the one with the shortest way there and back counts.
const READINGS: usize = 3;
/// Readings that one asker is given on a stream.
const READINGS_MAX: usize = 16;
/// One byte asks, eight answer: milliseconds since 1970, big-endian.
const READING_BYTES: usize = 8;

/// Tries every other node that is of the constellation, dead or not.
///
/// # Errors
/// When the loop has ended.
pub(crate) async fn survey(standpoint: &Standpoint) -> Result<Survey, Problem> {
    let me = standpoint.home.node;
    let others = move |node: &node::Node| {
        let there = node.state().nodes.iter();
        let others = there.filter(|(id, record)| **id != me && record.standing != Standing::Left);
        let others = others.map(|(id, record)| (*id, record.name.clone(), record.address.clone()));
        others.collect::<Vec<(NodeId, Name, String)>>()
    };
    let others = standpoint.shared.looker.look(others).await?;
    let tried = others.into_iter().map(|(node, name, address)| try_one(standpoint, node, name, address));
    let mut nodes: Vec<Neighbour> = futures_util::stream::iter(tried).buffer_unordered(AT_ONCE).collect().await;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Survey { listen: Some(standpoint.home.listen), nodes })
}

async fn try_one(standpoint: &Standpoint, node: NodeId, name: Name, address: String) -> Neighbour {
    let roads = &standpoint.shared.roads;
    let (connected, clock, datagrams) =
        tokio::join!(connect(roads, node), read_clock(roads, node), standpoint.gossip.call(node));
    let (round_trip_us, clock_ahead_ms) = clock.as_ref().map_or((None, None), |(ahead, way)| {
        let way = u64::try_from(way.as_micros()).unwrap_or(u64::MAX);
        (Some(way), Some(*ahead))
    });
    Neighbour {
        node,
        name,
        address,
        not_connected: connected.err(),
        not_answered: clock.err().map(|problem| problem.message),
        round_trip_us,
        clock_ahead_ms,
        datagrams,
    }
}

/// A connection of its own: one that is there already says nothing of the port.
async fn connect(roads: &Roads, node: NodeId) -> Result<(), String> {
    let address: SocketAddr = roads.address(node).await.map_err(|problem| problem.message)?;
    match timeout(WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

/// How many milliseconds another node's clock is ahead of this one's, and the time that asking took: half of it is how wrong
/// the first may be.
async fn read_clock(roads: &Roads, node: NodeId) -> Result<(i64, Duration), Problem> {
    let stream = roads.open(node, Purpose::Control, CLOCK, Bytes::new(), WITHIN).await?;
    let mut best: Option<(i64, Duration)> = None;
    for _ in 0..READINGS {
        let asked = Instant::now();
        let read = timeout(WITHIN, read_once(&stream)).await;
        let theirs = read.map_err(|_| no_reading("no answer in time"))??;
        let way = asked.elapsed();
        let half = i64::try_from(way.as_millis() / 2).unwrap_or(i64::MAX);
        // At this moment theirs shows what it said and the way back.
        let ahead = theirs.saturating_add(half).saturating_sub(millis_now());
        if best.is_none_or(|(_, shortest)| way < shortest) {
            best = Some((ahead, way));
        }
    }
    stream.finish();
    best.ok_or_else(|| no_reading("nothing was said"))
}

async fn read_once(stream: &Stream) -> Result<i64, Problem> {
    stream.write(Bytes::from_static(b"?")).await.map_err(|end| no_reading(&end.to_string()))?;
    let mut said = BytesMut::new();
    while said.len() < READING_BYTES {
        match stream.read().await.map_err(|end| no_reading(&end.to_string()))? {
            Some(bytes) => said.extend_from_slice(&bytes),
            None => return Err(no_reading("it ended its answer early")),
        }
    }
    let reading = said.first_chunk::<READING_BYTES>().filter(|_| said.len() == READING_BYTES);
    let reading = reading.ok_or_else(|| no_reading("it said more than it was asked"))?;
    i64::try_from(u64::from_be_bytes(*reading)).map_err(|_| no_reading("its clock shows no time"))
}

/// Answers who reads this node's clock.
#[expect(clippy::unnecessary_wraps, reason = "as every other service")]
pub(crate) fn serve_clock(stream: Stream) -> Result<(), Fault> {
    tokio::spawn(async move {
        let mut left = READINGS_MAX;
        while let Ok(Some(asked)) = stream.read().await {
            for _ in asked {
                if left == 0 || stream.write(clock::wall().0.to_be_bytes().to_vec().into()).await.is_err() {
                    return;
                }
                left -= 1;
            }
        }
        stream.finish();
    });
    Ok(())
}

fn millis_now() -> i64 {
    i64::try_from(clock::wall().0).unwrap_or(i64::MAX)
}

fn no_reading(why: &str) -> Problem {
    Problem::new(Code::Unavailable, format!("its clock cannot be read: {why}"))
}

//! Streams used as sockets.

#[path = "support/mod.rs"]
mod support;

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use net::{Purpose, StreamIo};
use rnp::stream::PIECE_BYTES_MAX;
use support::{Cluster, Node, SOON};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const WINDOW: u32 = 100_000;

/// Two nodes, and both ends of a stream between them.
struct Pair {
    _nodes: [Node; 2],
    connection: net::Connection,
    here: StreamIo,
    there: StreamIo,
}

async fn pair() -> Pair {
    let cluster = Cluster::new();
    let nodes = [cluster.node(1).await, cluster.node(2).await];
    let mut opened = nodes[1].service.streams();
    let connection = nodes[0].connect(&nodes[1], Purpose::Data).await;
    let here = StreamIo::new(connection.open("test", Bytes::new(), WINDOW, SOON).await.unwrap());
    let there = StreamIo::new(opened.recv().await.unwrap().1);
    Pair { _nodes: nodes, connection, here, there }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(SOON, future).await.expect("it happens in time")
}

#[tokio::test]
async fn bytes_pass_unchanged_whatever_the_sizes_of_reads_and_writes_and_each_direction_ends_on_its_own() {
    let Pair { here, there, _nodes, connection: _connection } = pair().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| ((n * 31) >> 7) as u8).collect();
    let (mut reading, mut writing) = tokio::io::split(here);
    let body = sent.clone();
    let upload = tokio::spawn(async move {
        for (at, chunk) in body.chunks(PIECE_BYTES_MAX + 7).enumerate() {
            // A byte by itself now and then.
            let (first, rest) = chunk.split_at(at % 2);
            writing.write_all(first).await.unwrap();
            writing.write_all(rest).await.unwrap();
        }
        writing.shutdown().await.unwrap();
        assert_eq!(writing.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        writing
    });
    let mut there = there;
    let (mut received, mut buffer) = (Vec::new(), [0; 1_013]);
    loop {
        let count = soon(there.read(&mut buffer)).await.unwrap();
        if count == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..count]);
    }
    assert!(received == sent, "{} bytes", received.len());
    let writing = soon(upload).await.unwrap();
    // The other direction goes on.
    there.write_all(b"thanks").await.unwrap();
    there.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(reading.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "thanks");
    drop(writing);
}

#[tokio::test]
async fn who_is_not_read_waits_and_loses_nothing() {
    let Pair { here, mut there, _nodes, connection: _connection } = pair().await;
    let (_reading, mut writing) = tokio::io::split(here);
    let chunk = vec![7; 10_000];
    let mut written = 0;
    // Ahead are the window and two pieces, and no more whatever time there is.
    while timeout(Duration::from_millis(300), writing.write_all(&chunk)).await.is_ok() {
        written += chunk.len();
        assert!(written < 2 << 20, "nobody reads, and yet it goes on");
    }
    assert!(written >= 4 * PIECE_BYTES_MAX / 2, "{written}");
    let mut received = 0;
    let mut buffer = vec![0; 50_000];
    while received < written {
        received += soon(there.read(&mut buffer)).await.unwrap();
    }
    soon(writing.write_all(&chunk)).await.unwrap();
}

#[tokio::test]
async fn many_small_writes_go_together() {
    let Pair { mut here, mut there, _nodes, connection: _connection } = pair().await;
    for byte in 0..2_000_u32 {
        here.write_all(&byte.to_be_bytes()).await.unwrap();
    }
    here.shutdown().await.unwrap();
    let mut received = Vec::new();
    soon(there.read_to_end(&mut received)).await.unwrap();
    assert!(received == (0..2_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>());
}

#[tokio::test]
async fn who_drops_his_side_early_resets_it() {
    let Pair { here, mut there, _nodes, connection: _connection } = pair().await;
    drop(here);
    assert_eq!(soon(there.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(there.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_end_of_the_connection_is_an_error_and_no_end_of_the_bytes() {
    let Pair { mut here, mut there, _nodes, connection } = pair().await;
    there.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    soon(here.read_exact(&mut half)).await.unwrap();
    connection.abort();
    assert_eq!(soon(here.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(soon(there.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn the_last_words_of_who_leaves_at_once_arrive() {
    let Pair { mut here, mut there, _nodes, connection: _connection } = pair().await;
    let sent = vec![7; 2 * WINDOW as usize];
    let leaving = tokio::spawn(async move {
        here.write_all(&sent).await.unwrap();
        here.shutdown().await.unwrap();
        drop(here);
        sent
    });
    let mut received = Vec::new();
    soon(there.read_to_end(&mut received)).await.unwrap();
    assert!(received == leaving.await.unwrap(), "{} bytes", received.len());
    // Nobody is there to read an answer, and that is told.
    let told = async {
        while there.write_all(b"answer").await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    soon(told).await;
}

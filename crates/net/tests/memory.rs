//! What a thousand connections that claim much cost. Peers are a process of their own: this test started again.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use net::{Limits, Purpose, Timing};
use support::*;

const CONNECTIONS: usize = 1_000;
const CLAIM: &str = "RADS_NET_TEST_CLAIM";
const MIB: usize = 1 << 20;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The peers: connect, claim 16 MiB each, send a little of it, and stay until the parent says so.
async fn claim(text: &str) {
    use rustls::pki_types::CertificateDer;
    let mut parts = text.split(' ');
    let address = parts.next().unwrap().parse().unwrap();
    let mut unhex = || {
        let text = parts.next().unwrap();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let key = net::identity::NodeKey::from_pkcs8(&unhex()).unwrap();
    let (leaf, authority) = (CertificateDer::from(unhex()), CertificateDer::from(unhex()));
    let own = key.certified(vec![leaf, authority.clone()]).unwrap();
    let trust = net::identity::Trust::new("prod".parse().unwrap(), vec![authority], Default::default()).unwrap();
    let mut kept = Vec::new();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        opening.spawn(raw_with(trust.clone(), address, own.clone()));
    }
    while let Some(raw) = opening.join_next().await {
        let mut raw = raw.unwrap();
        raw.hello(hello(1, "prod", Purpose::Data.as_str()), model::NodeId(1)).await.unwrap();
        let mut bytes = b"RNP\x01\x01\x00".to_vec();
        bytes.extend((16_u32 << 20).to_be_bytes());
        bytes.extend([0, 4, 0x85, 0xa4, b't', b'y']);
        raw.write(&bytes).await.unwrap();
        kept.push(raw);
    }
    println!("CLAIMED");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

async fn raw_with(
    trust: net::identity::Trust,
    address: std::net::SocketAddr,
    own: Arc<rustls::sign::CertifiedKey>,
) -> Raw {
    use net::tls::{Belief, Judge, client_config, server_name};
    let clock = Arc::new(Hand::at(NOW));
    let judge = Judge::new(Belief::Trust(Arc::new(trust)), Default::default(), clock);
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(client_config(Some(own), judge));
    Raw { stream: connector.connect(server_name(), socket).await.unwrap(), input: Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_claim_16_mib_each_cost_64_mib_at_most() {
    if let Ok(text) = std::env::var(CLAIM) {
        return claim(&text).await;
    }
    let (_, hard) = open_files();
    if hard < 2 * CONNECTIONS {
        println!("skipped: this user may have {hard} files open, and {} are needed", 2 * CONNECTIONS);
        return;
    }
    let cluster = Cluster::new();
    // However slow the machine is, none is let go of for not finishing its frame.
    let patient = Timing { stall: Duration::from_secs(600), hello: Duration::from_secs(60), ..Timing::DEFAULT };
    let limits = Limits {
        per_node: 2 * CONNECTIONS,
        strangers: 2 * CONNECTIONS,
        per_address: 2 * CONNECTIONS,
        ..Limits::default()
    };
    let b = cluster.node_with(2, patient, limits).await;
    let key = net::identity::NodeKey::generate().unwrap();
    let request = net::identity::request::CheckedRequest::read(&key.request().unwrap()).unwrap();
    let identity =
        model::NodeIdentity { cluster: cluster.name(), role: model::NodeRole::Controller, node: model::NodeId(1) };
    let issued = cluster.authority.issue(&request, &identity, net::identity::Lifetime::DEFAULT, NOW).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text =
        [b.address.to_string(), hex(&key.to_pkcs8()), hex(&issued.chain[0]), hex(cluster.authority.certificate())];
    // One that is good has gone before: what the first costs once is not what the thousand cost.
    let good = cluster.node(3).await;
    let connection = good.connect(&b, Purpose::Control).await;
    let before = resident();
    let name = "a_thousand_connections_that_claim_16_mib_each_cost_64_mib_at_most";
    // `ulimit -n` of the shell raises the soft limit, which is 1,024 on many systems.
    let shell = format!("ulimit -n {hard} 2>/dev/null; exec \"$0\" --exact {name} --nocapture");
    let mut peers = Command::new("sh")
        .args(["-c", &shell])
        .arg(std::env::current_exe().unwrap())
        .env(CLAIM, text.join(" "))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(peers.stdout.take().unwrap()).lines();
    let claimed = tokio::task::spawn_blocking(move || {
        let found = lines.any(|line| line.is_ok_and(|line| line.contains("CLAIMED")));
        (found, lines)
    });
    let (found, lines) = claimed.await.unwrap();
    assert!(found, "the peers connect");
    until("all are there", || b.endpoint.connections() == CONNECTIONS + 1).await;
    // Served all the same, after what they sent has been read.
    assert!(connection.request(vote(b"x"), SOON).await.is_ok());
    let grown = resident().saturating_sub(before);
    println!("{CONNECTIONS} connections that claim 16 MiB each: {} KiB", grown / 1024);
    drop(peers.stdin.take());
    lines.count();
    peers.wait().unwrap();
    assert!(grown <= 64 * MIB, "{} MiB", grown / MIB);
    until("all have ended", || b.endpoint.connections() == 1).await;
}

/// How many files this process may open, now and at most.
fn open_files() -> (usize, usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap_or(usize::MAX), numbers.next().unwrap_or(usize::MAX))
}

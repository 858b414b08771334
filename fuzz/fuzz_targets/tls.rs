//! What decides within a TLS handshake whether a peer is believed, shown any chain of certificates; and a server, sent any bytes.
//!
//! The input is a mode and a list of (length, bytes); where the mode says so they are changes (place, byte) to certificates that the
//! authority did issue.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use model::{NodeIdentity, NodeRole, WallTime};
use net::identity::request::CheckedRequest;
use net::identity::{Authority, Lifetime, NodeKey, Trust};
use net::identity::trust::{Expected, Revoked};
use net::tls::{Belief, Clock, Judge, server_config, server_name};
use rustls::ServerConnection;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

const NOW: WallTime = WallTime(1_795_000_000_000);

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> WallTime {
        NOW
    }
}

struct World {
    trust: Arc<Trust>,
    chain: Vec<CertificateDer<'static>>,
    key: NodeKey,
}

/// One authority and one node a process.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let cluster: model::Name = "prod".parse().expect("a name");
    let authority = Authority::create(&cluster, NOW).expect("an authority");
    let key = NodeKey::generate().expect("a key");
    let request = CheckedRequest::read(&key.request().expect("a request")).expect("a request");
    let subject = NodeIdentity { cluster: cluster.clone(), role: NodeRole::Controller, node: model::NodeId(2) };
    let issued = authority.issue(&request, &subject, Lifetime::days(7).expect("a week"), NOW).expect("a certificate");
    let trust = Trust::new(cluster, vec![authority.certificate().clone()], Revoked::default()).expect("trust");
    World { trust: Arc::new(trust), chain: issued.chain, key }
});

fn judge() -> Arc<Judge> {
    Judge::new(Belief::Trust(Arc::clone(&WORLD.trust)), Expected::default(), Arc::new(Stopped))
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, mut rest)) = input.split_first() else { return };
    if mode % 3 == 0 {
        let own = WORLD.key.certified(WORLD.chain.clone()).expect("a key and its certificate");
        let mut server = ServerConnection::new(server_config(own, judge())).expect("a server");
        while !rest.is_empty() {
            if server.read_tls(&mut rest).is_err() || server.process_new_packets().is_err() {
                return;
            }
            let _ = server.write_tls(&mut std::io::sink());
        }
        assert!(server.is_handshaking(), "nobody can finish a handshake without the answers");
        return;
    }
    let mut chain = Vec::new();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        chain.push(bytes.to_vec());
    }
    let is_changed = mode % 3 == 1;
    if is_changed {
        let changes = std::mem::replace(&mut chain, WORLD.chain.iter().map(|der| der.to_vec()).collect());
        for (certificate, changes) in chain.iter_mut().zip(&changes) {
            for change in changes.chunks_exact(3) {
                let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % certificate.len();
                certificate[place] = change[2];
            }
        }
    }
    let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
    let Some((leaf, others)) = chain.split_first() else { return };
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_millis(NOW.0));
    let by_client = judge();
    let one = by_client.verify_server_cert(leaf, others, &server_name(), &[], at).is_ok();
    let by_server = judge();
    let other = by_server.verify_client_cert(leaf, others, at).is_ok();
    assert_eq!(one, other);
    assert_eq!(by_client.take_verdict().is_some_and(|verdict| verdict.is_ok()), one);
    // Signed by nobody here knows: only the very certificate that was issued is believed.
    assert!(!one || *leaf == WORLD.chain[0], "a certificate that nobody issued is believed");
});

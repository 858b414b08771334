//! What decides within a TLS handshake whether a peer is believed, shown any chain of certificates; and a server, sent any bytes.
//!
//! The input is a mode and a list of (length, bytes): certificates, or changes to those that the authority did issue.
#![no_main]

use std::sync::{Arc, LazyLock};

use fuzz::{AUTHORITY, KEY, LEAF, NOW_MS, change, parts};
use libfuzzer_sys::fuzz_target;
use model::WallTime;
use net::identity::trust::{Expected, Revoked};
use net::identity::{NodeKey, Trust};
use net::tls::{Belief, Clock, Judge, server_config, server_name};
use rustls::ServerConnection;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

const NOW: WallTime = WallTime(NOW_MS);

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

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = NodeKey::from_pkcs8(KEY).expect("a key");
    let chain = [LEAF, AUTHORITY].map(CertificateDer::from).to_vec();
    let authorities = vec![CertificateDer::from(AUTHORITY)];
    let trust = Trust::new("prod".parse().expect("a name"), authorities, Revoked::default()).expect("trust");
    World { trust: Arc::new(trust), chain, key }
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
    let mut chain: Vec<Vec<u8>> = parts(rest).map(<[u8]>::to_vec).collect();
    if mode % 3 == 1 {
        let changes = std::mem::replace(&mut chain, vec![LEAF.to_vec(), AUTHORITY.to_vec()]);
        chain.iter_mut().zip(&changes).for_each(|(certificate, changes)| change(certificate, changes));
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

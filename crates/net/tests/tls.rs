//! Handshakes between sides that believe each other, and between sides of which one does not.

use std::sync::Arc;

use model::{Name, NodeId, NodeIdentity, NodeRole, WallTime};
use net::identity::request::CheckedRequest;
use net::identity::trust::Distrust;
use net::identity::{Authority, Expected, KeyPin, Lifetime, NodeKey, Revoked, Trust};
use net::tls::{Belief, Clock, Judge, Verdict, client_config, server_config, server_name};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const NOW: WallTime = WallTime(1_795_651_200_000);
const DAY: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug)]
struct At(WallTime);

impl Clock for At {
    fn now(&self) -> WallTime {
        self.0
    }
}

fn cluster(name: &str) -> Name {
    name.parse().unwrap()
}

fn authority(name: &str) -> Authority {
    Authority::create(&cluster(name), NOW).unwrap()
}

fn own(authority: &Authority, role: NodeRole, node: u64) -> Arc<CertifiedKey> {
    let key = NodeKey::generate().unwrap();
    let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
    let identity = NodeIdentity { cluster: authority.cluster().clone(), role, node: NodeId(node) };
    let issued = authority.issue(&request, &identity, Lifetime::DEFAULT, NOW).unwrap();
    key.certified(issued.chain).unwrap()
}

fn controller(authority: &Authority) -> Arc<CertifiedKey> {
    own(authority, NodeRole::Controller, 1)
}

fn worker(authority: &Authority) -> Arc<CertifiedKey> {
    own(authority, NodeRole::Worker, 2)
}

fn trust(authority: &Authority) -> Belief {
    let certificates = vec![authority.certificate().clone()];
    Belief::Trust(Arc::new(Trust::new(authority.cluster().clone(), certificates, Revoked::default()).unwrap()))
}

fn judge(belief: Belief, expected: Expected, now: WallTime) -> Arc<Judge> {
    Judge::new(belief, expected, Arc::new(At(now)))
}

/// Both sides to the end, with a byte each way: only then has the client heard what the server thinks of it.
async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Result<(), String>, Result<(), String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(64 << 10);
    let open = async {
        let mut stream = TlsConnector::from(client).connect(server_name(), near).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await.map(|_| ())
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        stream.flush().await
    };
    let (opened, accepted) = tokio::join!(open, accept);
    let text = |result: std::io::Result<()>| result.map_err(|error| error.to_string());
    (text(opened), text(accepted))
}

/// What the judge of the opening side and that of the accepting one say, and whether bytes went both ways.
async fn meet(
    client: (Option<Arc<CertifiedKey>>, Arc<Judge>),
    server: (Arc<CertifiedKey>, Arc<Judge>),
) -> (Verdict, Verdict, bool) {
    let client_judge = Arc::clone(&client.1);
    let server_judge = Arc::clone(&server.1);
    let (opened, accepted) = shake(client_config(client.0, client.1), server_config(server.0, server.1)).await;
    (client_judge.take_verdict(), server_judge.take_verdict(), opened.is_ok() && accepted.is_ok())
}

#[tokio::test]
async fn nodes_of_a_cluster_know_each_other() {
    let authority = authority("prod");
    let any = |belief| judge(belief, Expected::default(), NOW);
    let (server, client, met) =
        meet((Some(worker(&authority)), any(trust(&authority))), (controller(&authority), any(trust(&authority))))
            .await;
    assert!(met);
    assert_eq!(server.unwrap().unwrap().identity.node, NodeId(1));
    assert_eq!(client.unwrap().unwrap().identity.node, NodeId(2));
}

#[tokio::test]
async fn the_side_that_opens_refuses_whom_it_did_not_call() {
    let authority = authority("prod");
    let check = async |expected: Expected, now: WallTime, refusal: Option<Distrust>| {
        let client = (Some(worker(&authority)), judge(trust(&authority), expected, now));
        let server = (controller(&authority), judge(trust(&authority), Expected::default(), NOW));
        let (verdict, _, met) = meet(client, server).await;
        assert_eq!(met, refusal.is_none());
        assert_eq!(verdict.unwrap().err(), refusal);
    };
    let one = Expected { node: Some(NodeId(1)), role: Some(NodeRole::Controller) };
    check(one, NOW, None).await;
    let other = Expected { node: Some(NodeId(3)), role: None };
    check(other, NOW, Some(Distrust::OtherNode(NodeId(1)))).await;
    let role = Expected { node: None, role: Some(NodeRole::Worker) };
    check(role, NOW, Some(Distrust::OtherRole(NodeRole::Controller))).await;
    let late = WallTime(NOW.0 + 8 * DAY);
    check(one, late, Some(Distrust::Expired(WallTime(NOW.0 + 7 * DAY)))).await;
}

#[tokio::test]
async fn the_side_that_accepts_refuses_strangers_the_revoked_and_the_expired_and_they_hear_why() {
    let (prod, test) = (authority("prod"), authority("test"));
    let check = async |own: Arc<CertifiedKey>, belief: Belief, now: WallTime, refusal: Distrust, heard: &str| {
        let client = judge(trust(&prod), Expected::default(), NOW);
        let server = judge(belief, Expected::default(), now);
        let verdict = Arc::clone(&server);
        let (opened, _) = shake(client_config(Some(own), client), server_config(controller(&prod), server)).await;
        assert_eq!(verdict.take_verdict().unwrap(), Err(refusal));
        let told = opened.unwrap_err();
        assert!(told.contains(heard), "{told}");
    };
    let Belief::Trust(believed) = trust(&prod) else { unreachable!() };
    let without =
        Belief::Trust(Arc::new(believed.with_revoked(Revoked { nodes: [NodeId(2)].into(), ..Revoked::default() })));
    check(worker(&test), trust(&prod), NOW, Distrust::UnknownAuthority, "UnknownCA").await;
    check(worker(&prod), without, NOW, Distrust::RevokedNode, "CertificateRevoked").await;
    let (late, end) = (WallTime(NOW.0 + 8 * DAY), WallTime(NOW.0 + 7 * DAY));
    check(worker(&prod), trust(&prod), late, Distrust::Expired(end), "CertificateExpired").await;
}

#[tokio::test]
async fn a_machine_that_is_to_join_knows_the_authority_by_the_token_only() {
    let (prod, impostor) = (authority("prod"), authority("prod"));
    let check = async |pin: KeyPin, name: &str, refusal: Option<Distrust>| {
        let expected = Expected { node: None, role: Some(NodeRole::Controller) };
        let client = judge(Belief::Pin { cluster: cluster(name), pin }, expected, NOW);
        let server = judge(trust(&prod), Expected::default(), NOW);
        let (verdict, stranger, met) = meet((None, client), (controller(&prod), server)).await;
        assert_eq!(met, refusal.is_none());
        assert_eq!(verdict.unwrap().err(), refusal);
        assert_eq!(stranger, None, "nobody is known by having shown nothing");
    };
    check(prod.pin(), "prod", None).await;
    check(impostor.pin(), "prod", Some(Distrust::OtherAuthority)).await;
    check(prod.pin(), "test", Some(Distrust::OtherCluster(cluster("prod")))).await;
    // A token of before the authority was changed still finds its way.
    let next = prod.successor(NOW).unwrap();
    let expected = Expected { node: None, role: Some(NodeRole::Controller) };
    let client = judge(Belief::Pin { cluster: cluster("prod"), pin: prod.pin() }, expected, NOW);
    let server = judge(trust(&next), Expected::default(), NOW);
    let (_, _, met) = meet((None, client), (controller(&next), server)).await;
    assert!(met);
}

#[tokio::test]
async fn a_worker_does_not_pass_for_a_controller_to_who_joins() {
    let prod = authority("prod");
    let expected = Expected { node: None, role: Some(NodeRole::Controller) };
    let client = judge(Belief::Pin { cluster: cluster("prod"), pin: prod.pin() }, expected, NOW);
    let server = judge(trust(&prod), Expected::default(), NOW);
    let (verdict, _, met) = meet((None, client), (worker(&prod), server)).await;
    assert!(!met);
    assert_eq!(verdict.unwrap().err(), Some(Distrust::OtherRole(NodeRole::Worker)));
}

#[tokio::test]
async fn a_copied_certificate_without_its_key_is_of_no_use() {
    let prod = authority("prod");
    let stolen = worker(&prod).cert.clone();
    let other = own(&prod, NodeRole::Worker, 3);
    let thief = Arc::new(CertifiedKey::new(stolen, Arc::clone(&other.key)));
    let client = judge(trust(&prod), Expected::default(), NOW);
    let server = judge(trust(&prod), Expected::default(), NOW);
    let (_, _, met) = meet((Some(thief), client), (controller(&prod), server)).await;
    assert!(!met);
    assert!(NodeKey::generate().unwrap().certified(worker(&prod).cert.clone()).is_err());
}

/// A ClientHello of TLS 1.2, as `openssl s_client -tls1_2` writes it, cut down to what matters.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session; two suites of TLS 1.2; no compression.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // supported_groups x25519; signature_algorithms ecdsa_secp256r1_sha256; ec_point_formats.
    body.extend([0, 24, 0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 4, 3, 0, 1, 2]);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

#[tokio::test]
async fn tls_1_2_and_what_is_no_tls_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let prod = authority("prod");
    for (bytes, expected) in
        [(old_hello(), "peer is incompatible"), (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "corrupt message")]
    {
        let (mut near, far) = tokio::io::duplex(64 << 10);
        let server = server_config(controller(&prod), judge(trust(&prod), Expected::default(), NOW));
        near.write_all(&bytes).await.unwrap();
        let refused = TlsAcceptor::from(server).accept(far).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() <= 7, "an alert at most: {answer:?}");
    }
}

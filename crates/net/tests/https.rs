//! TLS between users and nodes: who is believed by whom, and that nothing older is spoken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{Name, NodeId, NodeIdentity, NodeRole, WallTime};
use net::ConnectError;
use net::https::{accept, connect};
use net::identity::request::CheckedRequest;
use net::identity::trust::Distrust;
use net::identity::{Authority, Lifetime, NodeKey, Revoked, Trust};
use net::tls::{Belief, Clock, SystemClock};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn now() -> WallTime {
    SystemClock.now()
}

fn authority() -> Authority {
    Authority::create(&name("prod"), now()).unwrap()
}

fn trust(authority: &Authority) -> Arc<Trust> {
    Arc::new(Trust::new(name("prod"), vec![authority.certificate().clone()], Revoked::default()).unwrap())
}

fn node(authority: &Authority) -> Arc<CertifiedKey> {
    let key = NodeKey::generate().unwrap();
    let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
    let subject = NodeIdentity { cluster: name("prod"), role: NodeRole::Controller, node: NodeId(7) };
    key.certified(authority.issue(&request, &subject, Lifetime::DEFAULT, now()).unwrap().chain).unwrap()
}

fn user(authority: &Authority, called: &str, made: WallTime) -> Arc<CertifiedKey> {
    let key = NodeKey::generate().unwrap();
    let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
    let end = WallTime(made.0 + 60_000);
    key.certified(authority.issue_user(&request, &name(called), end, made).unwrap().chain).unwrap()
}

/// A node that greets each user by name.
async fn serve(authority: &Authority) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (own, trust) = (node(authority), trust(authority));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (own, trust) = (own.clone(), trust.clone());
            tokio::spawn(async move {
                if let Ok((mut stream, user)) = accept(socket, own, trust, Arc::new(SystemClock)).await {
                    let name = user.map_or("nobody".to_owned(), |user| user.name.to_string());
                    let _ = stream.write_all(name.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    address
}

async fn greeted(address: SocketAddr, belief: Belief, own: Option<Arc<CertifiedKey>>) -> Result<String, String> {
    let connected = connect(address, belief, own, Arc::new(SystemClock)).await.map_err(|error| error.to_string())?;
    let (mut stream, mut text) = (connected.stream, String::new());
    stream.read_to_string(&mut text).await.map_err(|error| error.to_string())?;
    Ok(text)
}

#[tokio::test]
async fn a_node_is_known_by_its_authority_in_each_way() {
    let (ours, other) = (authority(), authority());
    let address = serve(&ours).await;
    let ways = |authority: &Authority| {
        [
            Belief::Trust(trust(authority)),
            Belief::Authority(authority.pin()),
            Belief::Authorities(vec![authority.certificate().clone()]),
            Belief::Pin { cluster: name("prod"), pin: authority.pin() },
        ]
    };
    for belief in ways(&ours) {
        assert_eq!(greeted(address, belief, None).await.as_deref(), Ok("nobody"));
    }
    for belief in ways(&other) {
        let refused = connect(address, belief, None, Arc::new(SystemClock)).await.err();
        let distrust = matches!(
            refused,
            Some(ConnectError::Distrust { reason: Distrust::UnknownAuthority | Distrust::OtherAuthority, .. })
        );
        assert!(distrust, "{refused:?}");
    }
}

#[tokio::test]
async fn a_user_is_known_by_a_certificate_of_this_authority_only() {
    let (ours, other) = (authority(), authority());
    let address = serve(&ours).await;
    let belief = || Belief::Trust(trust(&ours));
    assert_eq!(greeted(address, belief(), Some(user(&ours, "ann", now()))).await.as_deref(), Ok("ann"));
    // One of another authority of the same name, one that is over, and one of a node: each is refused, and not taken for nobody.
    for own in [user(&other, "ann", now()), user(&ours, "ann", WallTime(now().0 - 3_600_000)), node(&ours)] {
        let refused = greeted(address, belief(), Some(own)).await;
        assert!(refused.as_ref().is_err_and(|why| why.contains("alert")), "{refused:?}");
    }
}

/// A hello that offers TLS 1.2 alone (RFC 5246): version 3.3, two suites of it, and the curves and signatures that ours has.
fn hello_of_tls_1_2(with_tls_1_3: bool) -> Vec<u8> {
    let mut extensions = vec![
        0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x1d, // supported_groups: x25519
        0x00, 0x0d, 0, 6, 0, 4, 0x04, 0x03, 0x08, 0x07, // signature_algorithms
        0x00, 0x10, 0, 11, 0, 9, 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1', // ALPN
    ];
    if with_tls_1_3 {
        extensions.extend([0x00, 0x2b, 0, 3, 2, 0x03, 0x04]); // supported_versions
        extensions.extend([0x00, 0x33, 0, 38, 0, 36, 0x00, 0x1d, 0, 32]); // key_share
        extensions.extend([9; 32]);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // session id
    body.extend([0, 6, 0xc0, 0x2b, 0xc0, 0x2f, 0x13, 0x01]);
    body.extend([1, 0]); // compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let ours = authority();
    let address = serve(&ours).await;
    let answer = async |hello: Vec<u8>| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut head = [0; 7];
        let read = stream.read_exact(&mut head);
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
        head
    };
    // An alert, fatal: protocol_version (RFC 8446, 6.2).
    let refused = answer(hello_of_tls_1_2(false)).await;
    assert_eq!((refused[0], refused[5], refused[6]), (21, 2, 70), "{refused:?}");
    // The control: with the newer version offered beside it, the same hello is answered by a handshake.
    assert_eq!(answer(hello_of_tls_1_2(true)).await[0], 22);
}

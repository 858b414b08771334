//! TLS 1.3 for the API over HTTP: a node shows the certificate it has; a user shows none, or one of theirs. No older version, no
//! session that is resumed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig, SignatureScheme, version};
use std::io;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::endpoint::{ConnectError, settle};
use crate::identity::trust::{Distrust, Expected};
use crate::identity::{Certificate, Trust, UserCertificate};
use crate::tls::{Belief, Clock, Judge, Own, alert, client_config_for, provider, schemes, server_name};

/// The protocol's name within TLS (RFC 7301).
pub const ALPN: &[u8] = b"http/1.1";

/// Answers one connection: who calls, if they show it.
///
/// # Errors
/// When there is no TLS 1.3 with them, or their certificate is not believed.
pub async fn accept(
    socket: TcpStream,
    own: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
) -> io::Result<(server::TlsStream<TcpStream>, Option<UserCertificate>)> {
    settle(&socket)?;
    let judge = Arc::new(JudgeOfUsers { trust, clock, verdict: Mutex::default() });
    let accepted = TlsAcceptor::from(server_config(own, Arc::clone(&judge))).accept(socket).await;
    let verdict = judge.verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
    match verdict {
        Some(Err(distrust)) => Err(io::Error::other(distrust)),
        Some(Ok(user)) => Ok((accepted?, Some(user))),
        None => Ok((accepted?, None)),
    }
}

/// What a client learns of who answers.
pub struct Connected {
    pub stream: client::TlsStream<TcpStream>,
    /// The node that answers.
    pub certificate: Certificate,
    /// All it showed, authorities included.
    pub chain: Vec<CertificateDer<'static>>,
}

fn reason(error: &io::Error) -> String {
    let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            "it speaks another protocol; nodes speak theirs with each other on a port of its own".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Opens one connection to any node of who is believed, with a user's certificate or without.
///
/// # Errors
/// Tells whether nobody answers, or somebody else.
pub async fn connect(
    address: SocketAddr,
    belief: Belief,
    own: Option<Arc<CertifiedKey>>,
    clock: Arc<dyn Clock>,
) -> Result<Connected, ConnectError> {
    let unreachable = |error: io::Error| ConnectError::Unreachable { address, reason: error.to_string() };
    let socket = TcpStream::connect(address).await.map_err(unreachable)?;
    settle(&socket).map_err(unreachable)?;
    let judge = Judge::new(belief, Expected::default(), clock);
    let connector = TlsConnector::from(client_config_for(ALPN, own, Arc::clone(&judge)));
    let connected = connector.connect(server_name(), socket).await;
    let certificate = match judge.take_verdict() {
        Some(Ok(certificate)) => certificate,
        Some(Err(reason)) => return Err(ConnectError::Distrust { address, reason }),
        None => {
            let reason = connected.err().map_or_else(|| "it shows no certificate".to_owned(), |error| reason(&error));
            return Err(ConnectError::Tls { address, reason });
        }
    };
    let stream = connected.map_err(|error| ConnectError::Tls { address, reason: reason(&error) })?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    Ok(Connected { stream, certificate, chain })
}

fn server_config(own: Arc<CertifiedKey>, judge: Arc<JudgeOfUsers>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.expect("the provider has suites of TLS 1.3");
    let mut config = builder.with_client_cert_verifier(judge).with_cert_resolver(Arc::new(Own(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// Judges the user of one handshake and keeps what came of it.
#[derive(Debug)]
struct JudgeOfUsers {
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    verdict: Mutex<Option<Result<UserCertificate, Distrust>>>,
}

impl ClientCertVerifier for JudgeOfUsers {
    /// Who shows none shows a token.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = [end_entity].into_iter().chain(intermediates).cloned().collect();
        let verdict = self.trust.judge_user(&chain, self.clock.now());
        let told = verdict.as_ref().map(|_| ()).map_err(alert);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        told.map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

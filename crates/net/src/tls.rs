//! TLS 1.3 between nodes: no tickets, no resumption, no early data, ALPN `rnp/1`, both sides judged by [`Trust`].
//!
//! Every handshake has a verifier of its own that keeps its verdict, so that a refusal is told in our words and the peer's
//! certificate is read once. A resumed session would go on under a certificate that was judged earlier: there are none.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::{Name, WallTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
    SignatureScheme, version,
};

use crate::identity::trust::{Distrust, Expected};
use crate::identity::{Certificate, KeyPin, Revoked, Trust};

/// The protocol's name within TLS.
pub const ALPN: &[u8] = b"rnp/1";

/// What time it is; another one in tests.
pub trait Clock: fmt::Debug + Send + Sync {
    fn now(&self) -> WallTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// By what a peer is judged.
#[derive(Debug, Clone)]
pub enum Belief {
    /// A node judges by what its cluster trusts.
    Trust(Arc<Trust>),
    /// A machine that is to join knows the authority by the token only.
    Pin {
        cluster: Name,
        pin: KeyPin,
    },
    /// Who is to use a constellation knows its authority by the hash of its key, or by its certificate: what the constellation is
    /// called is that one's word.
    Authority(KeyPin),
    Authorities(Vec<CertificateDer<'static>>),
}

impl Belief {
    fn judge(&self, chain: &[CertificateDer<'_>], expected: Expected, now: WallTime) -> Result<Certificate, Distrust> {
        match self {
            Self::Trust(trust) => trust.judge(chain, expected, now),
            Self::Pin { cluster, pin } => Trust::pinned(cluster.clone(), *pin, chain)?.judge(chain, expected, now),
            Self::Authority(pin) => Trust::pinned(named(chain)?, *pin, chain)?.judge(chain, expected, now),
            Self::Authorities(authorities) => {
                let trust = Trust::new(named(chain)?, authorities.clone(), Revoked::default());
                trust.map_err(|fault| Distrust::Chain(fault.to_string()))?.judge(chain, expected, now)
            }
        }
    }
}

/// Of which cluster a peer says that it is; not yet believed.
fn named(chain: &[CertificateDer<'_>]) -> Result<Name, Distrust> {
    let leaf = chain.first().ok_or(Distrust::NoCertificate)?;
    Ok(Certificate::read(leaf)?.identity.cluster)
}

/// The verdict of one handshake. Nothing when the peer showed no certificate.
pub type Verdict = Option<Result<Certificate, Distrust>>;

/// Judges the peer of one handshake and keeps what came of it.
#[derive(Debug)]
pub struct Judge {
    belief: Belief,
    expected: Expected,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
    verdict: Mutex<Verdict>,
}

impl Judge {
    pub fn new(belief: Belief, expected: Expected, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { belief, expected, clock, provider: provider(), verdict: Mutex::default() })
    }

    /// What came of it; asked once, when the handshake is over.
    pub fn take_verdict(&self) -> Verdict {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn judge(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> = [leaf].into_iter().chain(rest).cloned().collect();
        let verdict = self.belief.judge(&chain, self.expected, self.clock.now());
        let told = verdict.as_ref().map(|_| ()).map_err(alert);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        told
    }

    fn verify(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }
}

/// What the peer is told: by which alert a node learns that it has to renew, or that it was removed.
pub(crate) fn alert(distrust: &Distrust) -> Error {
    Error::InvalidCertificate(match distrust {
        Distrust::Expired(_) => CertificateError::Expired,
        Distrust::NotYetValid(_) => CertificateError::NotValidYet,
        Distrust::RevokedCertificate | Distrust::RevokedNode => CertificateError::Revoked,
        Distrust::UnknownAuthority | Distrust::OtherAuthority => CertificateError::UnknownIssuer,
        Distrust::Certificate(_) => CertificateError::BadEncoding,
        _ => CertificateError::ApplicationVerificationFailure,
    })
}

/// The two kinds of signatures that keys of nodes make.
pub(crate) fn schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
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
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Judge {
    /// A machine that is to join has none; what it may say is another's to decide.
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
        self.judge(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
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
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// The one certificate of this side.
#[derive(Debug)]
pub(crate) struct Own(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// How to answer a connection, judging its other side by `judge`.
pub fn server_config(own: Arc<CertifiedKey>, judge: Arc<Judge>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.expect("the provider has suites of TLS 1.3");
    let mut config = builder.with_client_cert_verifier(judge).with_cert_resolver(Arc::new(Own(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// How to open a connection, with a certificate or, to join, without.
pub fn client_config(own: Option<Arc<CertifiedKey>>, judge: Arc<Judge>) -> Arc<ClientConfig> {
    client_config_for(ALPN, own, judge)
}

/// The same for another protocol within.
pub(crate) fn client_config_for(alpn: &[u8], own: Option<Arc<CertifiedKey>>, judge: Arc<Judge>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.expect("the provider has suites of TLS 1.3");
    let builder = builder.dangerous().with_custom_certificate_verifier(judge);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(Own(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // Peers are known by their certificates; a name in the open would tell who calls whom.
    config.enable_sni = false;
    Arc::new(config)
}

/// The name that TLS wants of a server; never sent, as [`client_config`] says.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("node.invalid").expect("a host name")
}

/// The suites of TLS 1.3 with AES-128 before AES-256: as safe for sessions of a week, and a fifth cheaper for bulk. Keys are agreed
/// on by X25519 with ML-KEM, so that what is recorded today is not read in twenty years.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    let make = || {
        let suites = [
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() })
    };
    Arc::clone(PROVIDER.get_or_init(make))
}

//! Who is believed and who is not: each refusal beside the case that differs in nothing else and is accepted.

use std::time::Duration;

use model::{Name, NodeId, NodeIdentity, NodeRole, WallTime};
use net::identity::authority::{BACKDATED, IdentityError, InvalidLifetime};
use net::identity::renewal::{Grace, Recovery, RecoveryRefusal, renew_at};
use net::identity::request::CheckedRequest;
use net::identity::trust::Distrust;
use net::identity::{Authority, Certificate, Expected, Issued, KeyRing, KeyUse, Lifetime, NodeKey, Revoked, Trust};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// 2026-11-26.
const NOW: WallTime = WallTime(1_795_651_200_000);
const DAY: u64 = 24 * 60 * 60 * 1000;

fn cluster(name: &str) -> Name {
    name.parse().unwrap()
}

fn worker(node: u64) -> NodeIdentity {
    NodeIdentity { cluster: cluster("prod"), role: NodeRole::Worker, node: NodeId(node) }
}

fn later(millis: u64) -> WallTime {
    WallTime(NOW.0 + millis)
}

fn authority() -> Authority {
    Authority::create(&cluster("prod"), NOW).unwrap()
}

fn issue(authority: &Authority, key: &NodeKey, subject: &NodeIdentity, now: WallTime) -> Issued {
    let request = CheckedRequest::read(&key.request().unwrap()).unwrap();
    authority.issue(&request, subject, Lifetime::DEFAULT, now).unwrap()
}

fn issued(authority: &Authority, node: u64) -> Issued {
    issue(authority, &NodeKey::generate().unwrap(), &worker(node), NOW)
}

fn trust(authorities: &[&Authority]) -> Trust {
    trust_of("prod", authorities)
}

fn trust_of(name: &str, authorities: &[&Authority]) -> Trust {
    let certificates = authorities.iter().map(|authority| authority.certificate().clone()).collect();
    Trust::new(cluster(name), certificates, Revoked::default()).unwrap()
}

fn check(trust: &Trust, issued: &Issued, expected: Result<NodeId, Distrust>) {
    let judged = trust.judge(&issued.chain, Expected::default(), NOW);
    assert_eq!(judged.map(|certificate| certificate.identity.node), expected);
}

#[test]
fn a_certificate_says_what_the_authority_decided() {
    let authority = authority();
    let issued = issued(&authority, 7);
    let certificate = trust(&[&authority]).judge(&issued.chain, Expected::default(), NOW).unwrap();
    assert_eq!(certificate.identity, worker(7));
    assert_eq!(certificate.serial, issued.serial);
    assert_eq!(certificate.not_before, WallTime(NOW.0 - BACKDATED.as_millis() as u64));
    assert_eq!(certificate.not_after, later(7 * DAY));
    let (_, parsed) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert!(!parsed.is_ca());
    let uses = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(uses.server_auth && uses.client_auth && !uses.any && !uses.code_signing && uses.other.is_empty());
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.iter();
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    assert_eq!(names, ["DNSName(node-0000000000007.node.prod)", "URI(rads://prod/worker/node_0000000000007)"]);
}

#[test]
fn serials_are_never_the_same() {
    let authority = authority();
    let serials: std::collections::BTreeSet<_> = (0..100).map(|node| issued(&authority, node).serial).collect();
    assert_eq!(serials.len(), 100);
}

#[test]
fn lifetimes_are_a_day_to_a_year_and_never_beyond_the_authority() {
    for days in [1, 7, 300, 365] {
        assert_eq!(Lifetime::days(days).unwrap().duration(), Duration::from_millis(u64::from(days) * DAY));
    }
    for days in [0, 366, u16::MAX] {
        assert_eq!(Lifetime::days(days), Err(InvalidLifetime(days)));
    }
    let authority = authority();
    let request = CheckedRequest::read(&NodeKey::generate().unwrap().request().unwrap()).unwrap();
    let end = later(10 * 365 * DAY);
    let year = Lifetime::days(365).unwrap();
    let last = authority.issue(&request, &worker(1), year, WallTime(end.0 - DAY)).unwrap();
    assert_eq!(last.not_after, end);
    let after = authority.issue(&request, &worker(1), year, end);
    assert!(matches!(after, Err(IdentityError::AuthorityExpired)), "{after:?}");
}

#[test]
fn what_a_request_asks_for_is_ignored() {
    let key = KeyPair::generate().unwrap();
    let mut asked = CertificateParams::new(["node-0000000000001.node.prod".to_owned()]).unwrap();
    asked.subject_alt_names.push(SanType::URI("rads://prod/controller/node_0000000000001".try_into().unwrap()));
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    asked.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let request = CheckedRequest::read(asked.serialize_request(&key).unwrap().der()).unwrap();
    let authority = authority();
    let issued = authority.issue(&request, &worker(7), Lifetime::DEFAULT, NOW).unwrap();
    let certificate = trust(&[&authority]).judge(&issued.chain, Expected::default(), NOW).unwrap();
    assert_eq!(certificate.identity, worker(7));
    let (_, parsed) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert!(!parsed.is_ca());
    assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert!(!parsed.extended_key_usage().unwrap().unwrap().value.any);
    assert_eq!(parsed.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
}

#[test]
fn a_certificate_is_believed_between_its_moments_only() {
    let authority = authority();
    let (issued, trust) = (issued(&authority, 7), trust(&[&authority]));
    let at = |now| trust.judge(&issued.chain, Expected::default(), now).map(|_| ());
    assert_eq!(at(issued.not_before), Ok(()));
    assert_eq!(at(issued.not_after), Ok(()));
    assert_eq!(at(WallTime(issued.not_before.0 - 1000)), Err(Distrust::NotYetValid(issued.not_before)));
    assert_eq!(at(WallTime(issued.not_after.0 + 1000)), Err(Distrust::Expired(issued.not_after)));
}

#[test]
fn other_clusters_nodes_and_roles_are_refused() {
    let authority = authority();
    let (issued, trust) = (issued(&authority, 7), trust(&[&authority]));
    let judge = |node: Option<u64>, role| {
        let expected = Expected { node: node.map(NodeId), role };
        trust.judge(&issued.chain, expected, NOW).map(|_| ())
    };
    assert_eq!(judge(Some(7), Some(NodeRole::Worker)), Ok(()));
    assert_eq!(judge(Some(8), None), Err(Distrust::OtherNode(NodeId(7))));
    assert_eq!(judge(None, Some(NodeRole::Controller)), Err(Distrust::OtherRole(NodeRole::Worker)));
    // The same authority under another cluster's name: names count, not only keys.
    check(&trust_of("test", &[&authority]), &issued, Err(Distrust::OtherCluster(cluster("prod"))));
    let foreign = Authority::create(&cluster("prod"), NOW).unwrap();
    check(&self::trust(&[&foreign]), &issued, Err(Distrust::UnknownAuthority));
}

#[test]
fn revoked_certificates_and_nodes_are_refused() {
    let authority = authority();
    let (one, other) = (issued(&authority, 7), issued(&authority, 7));
    let trust = trust(&[&authority]);
    let serial = trust.with_revoked(Revoked { serials: [one.serial].into(), ..Revoked::default() });
    check(&serial, &one, Err(Distrust::RevokedCertificate));
    check(&serial, &other, Ok(NodeId(7)));
    let node = trust.with_revoked(Revoked { nodes: [NodeId(7)].into(), ..Revoked::default() });
    check(&node, &other, Err(Distrust::RevokedNode));
    check(&node, &issued(&authority, 8), Ok(NodeId(8)));
}

/// A certificate as a stranger would make it, with a key of their own.
fn forged(change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(["node-0000000000007.node.prod".to_owned()]).unwrap();
    params.serial_number = Some(7_u64.into());
    params.subject_alt_names.push(SanType::URI("rads://prod/worker/node_0000000000007".try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    (params, KeyPair::generate().unwrap())
}

#[test]
fn self_signed_certificates_and_those_of_nodes_that_play_authority_are_refused() {
    let authority = authority();
    let trust = trust(&[&authority]);
    let judge = |chain: &[CertificateDer<'_>]| trust.judge(chain, Expected::default(), NOW).unwrap_err();
    let (params, key) = forged(|_| {});
    assert_eq!(judge(&[params.self_signed(&key).unwrap().der().clone()]), Distrust::UnknownAuthority);
    // A node signs for another with its own good certificate as an intermediate.
    let node = NodeKey::generate().unwrap();
    let good = issue(&authority, &node, &worker(7), NOW);
    let pair = KeyPair::try_from(node.to_pkcs8().to_vec()).unwrap();
    let mut name = CertificateParams::default();
    name.distinguished_name = rcgen::DistinguishedName::new();
    name.distinguished_name.push(rcgen::DnType::CommonName, NodeId(7).to_string());
    let issuer = rcgen::Issuer::from_params(&name, &pair);
    let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
    let chain = [&[leaf], good.chain.as_slice()].concat();
    assert!(matches!(judge(&chain), Distrust::Chain(_) | Distrust::UnknownAuthority), "{:?}", judge(&chain));
    assert_eq!(judge(&[]), Distrust::NoCertificate);
    let long: Vec<_> = std::iter::repeat_n(good.chain[0].clone(), 6).collect();
    assert_eq!(judge(&long), Distrust::LongChain);
    // The authority itself is no node.
    assert!(matches!(judge(&[authority.certificate().clone()]), Distrust::Chain(_)));
}

/// A trust in an authority whose key is a test's, to issue what ours never would.
struct Careless {
    params: CertificateParams,
    key: KeyPair,
    trust: Trust,
}

impl Careless {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let trust = Trust::new(cluster("prod"), vec![certificate], Revoked::default()).unwrap();
        Self { params, key, trust }
    }

    fn judge(&self, change: impl FnOnce(&mut CertificateParams)) -> Result<NodeId, Distrust> {
        let (params, key) = forged(change);
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
        self.trust.judge(&[leaf], Expected::default(), NOW).map(|certificate| certificate.identity.node)
    }
}

#[test]
fn names_that_do_not_agree_or_are_too_many_are_refused_even_if_an_authority_signed_them() {
    let careless = Careless::new();
    let nameless = Err(Distrust::Certificate(net::identity::certificate::CertificateFault::Nameless));
    assert_eq!(careless.judge(|_| {}), Ok(NodeId(7)));
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    assert_eq!(careless.judge(|p| p.subject_alt_names[0] = dns("node-0000000000008.node.prod")), nameless);
    assert_eq!(careless.judge(|p| p.subject_alt_names[0] = dns("node-0000000000007.node.test")), nameless);
    assert_eq!(careless.judge(|p| p.subject_alt_names[1] = uri("rads://prod/admin/node_0000000000007")), nameless);
    assert_eq!(careless.judge(|p| p.subject_alt_names.push(dns("example.com"))), nameless);
    assert_eq!(careless.judge(|p| p.subject_alt_names.clear()), nameless);
    assert_eq!(careless.judge(|p| p.subject_alt_names.swap(0, 1)), nameless);
    let long = careless.judge(|p| p.serial_number = Some(vec![1; 17].into()));
    assert_eq!(long, Err(Distrust::Certificate(net::identity::certificate::CertificateFault::Serial)));
}

#[test]
fn certificates_for_one_side_only_are_refused() {
    let careless = Careless::new();
    for usage in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        let judged = careless.judge(|params| params.extended_key_usages = vec![usage]);
        assert!(matches!(judged, Err(Distrust::Chain(_))), "{judged:?}");
    }
    let authority = careless.judge(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(matches!(authority, Err(Distrust::Chain(_))), "{authority:?}");
}

#[test]
fn the_authority_is_kept_sealed_and_opens_under_its_ring_only() {
    let authority = authority();
    let ring = |number, byte| KeyRing::new([(number, [byte; 32])]).unwrap().for_use(KeyUse::Authority);
    let sealed = authority.seal(&ring(1, 7));
    let opened = Authority::open(&sealed, &ring(1, 7)).unwrap();
    assert_eq!(opened.pin(), authority.pin());
    check(&trust(&[&authority]), &issued(&opened, 9), Ok(NodeId(9)));
    assert!(matches!(Authority::open(&sealed, &ring(1, 8)), Err(IdentityError::Sealed(_))));
    assert!(matches!(Authority::open(&sealed, &ring(2, 7)), Err(IdentityError::Sealed(_))));
    // Another authority's certificate does not go with the key.
    let mut mixed = sealed.clone();
    mixed.certificate = self::authority().certificate().to_vec();
    assert!(matches!(Authority::open(&mixed, &ring(1, 7)), Err(IdentityError::Sealed(_))));
    let key = NodeKey::generate().unwrap().to_pkcs8();
    assert!(!sealed.sealed_key.windows(8).any(|window| window == &key[..8]), "nothing of a PKCS#8 head is seen");
}

#[test]
fn authorities_are_changed_while_members_know_the_old_the_new_or_both() {
    let old = authority();
    let new = old.successor(NOW).unwrap();
    assert_ne!(old.pin(), new.pin());
    let (by_old, by_new) = (issued(&old, 7), issued(&new, 8));
    // Who knows both, who slept through it, and who joined after it.
    check(&trust(&[&old, &new]), &by_old, Ok(NodeId(7)));
    check(&trust(&[&old, &new]), &by_new, Ok(NodeId(8)));
    check(&trust(&[&old]), &by_new, Ok(NodeId(8)));
    check(&trust(&[&new]), &by_new, Ok(NodeId(8)));
    check(&trust(&[&new]), &by_old, Err(Distrust::UnknownAuthority));
    // The control: without the cross certificate who slept through it is lost.
    let ring = KeyRing::new([(1, [7; 32])]).unwrap().for_use(KeyUse::Authority);
    let new = Authority::open(&new.seal(&ring), &ring).unwrap();
    check(&trust(&[&old]), &issued(&new, 8), Ok(NodeId(8)));
    let new = new.without_cross();
    check(&trust(&[&old]), &issued(&new, 8), Err(Distrust::UnknownAuthority));
    check(&trust(&[&new]), &issued(&new, 8), Ok(NodeId(8)));
}

#[test]
fn a_node_that_was_off_gets_a_new_certificate_for_its_old_one_within_the_grace() {
    let authority = authority();
    let trust = trust(&[&authority]);
    let (old, new) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
    let issued = issue(&authority, &old, &worker(7), NOW);
    let ask = |key: &NodeKey| Recovery::ask(issued.chain.clone(), key, &new, b"connection").unwrap();
    let recover = |recovery: &Recovery, trust: &Trust, binding: &[u8], now, member| {
        authority.recover(recovery, trust, Grace::default(), binding, Lifetime::DEFAULT, now, |_| member)
    };
    let good = ask(&old);
    let now = later(20 * DAY);
    let again = recover(&good, &trust, b"connection", now, true).unwrap();
    let certificate = trust.judge(&again.chain, Expected::default(), now).unwrap();
    assert_eq!((certificate.identity, certificate.not_after), (worker(7), later(27 * DAY)));

    let refused = |recovery: &Recovery, trust: &Trust, binding: &[u8], now, member| {
        recover(recovery, trust, binding, now, member).unwrap_err()
    };
    use RecoveryRefusal as R;
    let last = later(37 * DAY);
    assert!(recover(&good, &trust, b"connection", last, true).is_ok());
    let late = WallTime(last.0 + 1);
    assert!(matches!(refused(&good, &trust, b"connection", late, true), R::TooLate(_)));
    assert!(matches!(refused(&good, &trust, b"connection", later(DAY), true), R::StillGood));
    assert!(matches!(refused(&good, &trust, b"another", now, true), R::NoPossession));
    assert!(matches!(refused(&ask(&new), &trust, b"connection", now, true), R::NoPossession));
    assert!(matches!(refused(&good, &trust, b"connection", now, false), R::NotMember(NodeId(7))));
    let revoked = trust.with_revoked(Revoked { nodes: [NodeId(7)].into(), ..Revoked::default() });
    assert!(matches!(refused(&good, &revoked, b"connection", now, true), R::Distrust(Distrust::RevokedNode)));
    let foreign = self::trust(&[&self::authority()]);
    let distrust = refused(&good, &foreign, b"connection", now, true);
    assert!(matches!(distrust, R::Distrust(Distrust::UnknownAuthority)));
    // The request cannot be exchanged for that of somebody else.
    let mut exchanged = good.clone();
    exchanged.request = NodeKey::generate().unwrap().request().unwrap();
    assert!(matches!(refused(&exchanged, &trust, b"connection", now, true), R::NoPossession));
}

#[test]
fn renewal_is_due_long_before_the_end() {
    let authority = authority();
    let issued = issued(&authority, 7);
    let certificate = Certificate::read(&issued.chain[0]).unwrap();
    let due = renew_at(&certificate);
    assert!(due > later(4 * DAY) && due < later(6 * DAY), "{due}");
}

#[test]
fn no_byte_of_a_certificate_can_be_changed_and_none_be_missing() {
    let authority = authority();
    let (issued, trust) = (issued(&authority, 7), trust(&[&authority]));
    let leaf = issued.chain[0].to_vec();
    for at in 0..leaf.len() {
        let mut damaged = leaf.clone();
        damaged[at] ^= 1;
        let judge = |der: Vec<u8>| trust.judge(&[CertificateDer::from(der)], Expected::default(), NOW);
        assert!(judge(damaged).is_err(), "byte {at}");
        assert!(judge(leaf[..at].to_vec()).is_err(), "{at} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_certificate_with_bytes_put_in_or_taken_out_is_refused(
        at in 0.0..1.0,
        out in 0usize..40,
        what in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let authority = authority();
        let leaf = issued(&authority, 7).chain[0].to_vec();
        let from = (leaf.len() as f64 * at) as usize;
        let to = (from + out).min(leaf.len());
        let mut changed = leaf.clone();
        changed.splice(from..to, what);
        prop_assume!(changed != leaf);
        let chain = [CertificateDer::from(changed)];
        prop_assert!(trust(&[&authority]).judge(&chain, Expected::default(), NOW).is_err());
    }

    #[test]
    fn any_bytes_are_no_authority(garbage in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(Trust::new(cluster("prod"), vec![CertificateDer::from(garbage)], Revoked::default()).is_err());
    }
}

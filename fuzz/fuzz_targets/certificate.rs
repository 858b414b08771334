//! Certificates and requests for them, in DER: the input is one, or changes to a genuine one.
#![no_main]

use fuzz::{AUTHORITY, LEAF, REQUEST, change};
use libfuzzer_sys::fuzz_target;
use net::identity::Certificate;
use net::identity::certificate::{dns_name, public_key_info, uri_name};
use net::identity::request::CheckedRequest;
use rustls::pki_types::CertificateDer;

fuzz_target!(|input: &[u8]| {
    let Some((what, bytes)) = input.split_first() else { return };
    let changed = |genuine: &[u8]| {
        let mut der = genuine.to_vec();
        change(&mut der, bytes);
        der
    };
    let der = match what % 5 {
        0 | 1 => bytes.to_vec(),
        2 => changed(LEAF),
        3 => changed(AUTHORITY),
        _ => changed(REQUEST),
    };
    if matches!(what % 5, 1 | 4) {
        let request = CheckedRequest::read(&der);
        // What names the algorithm beside the signature is signed by nobody, and says nothing of the key.
        let is_genuine = || request == CheckedRequest::read(REQUEST);
        assert!(what % 5 == 1 || request.is_err() || is_genuine(), "a request was signed by nobody");
        return;
    }
    let der = CertificateDer::from(der);
    let _ = public_key_info(&der);
    if let Ok(certificate) = Certificate::read(&der) {
        let identity = &certificate.identity;
        assert!(uri_name(identity).starts_with("rads://"));
        assert!(dns_name(identity.node, &identity.cluster).ends_with(identity.cluster.as_str()));
    }
});

//! Certificates and requests for them, in DER.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::identity::Certificate;
use net::identity::certificate::{dns_name, uri_name};
use net::identity::request::CheckedRequest;
use rustls::pki_types::CertificateDer;

fuzz_target!(|input: &[u8]| {
    let Some((what, der)) = input.split_first() else { return };
    if what % 2 == 0 {
        if let Ok(certificate) = Certificate::read(&CertificateDer::from(der)) {
            let identity = &certificate.identity;
            assert!(uri_name(identity).starts_with("rads://"));
            assert!(dns_name(identity.node, &identity.cluster).ends_with(identity.cluster.as_str()));
        }
    } else {
        let _ = CheckedRequest::read(der);
    }
});

//! Certificates and keys as files have them (RFC 7468). Reading is `rustls-pki-types`'; it writes none.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Longest file that is looked at.
pub const PEM_MAX_BYTES: usize = 64 * 1024;

pub fn certificates(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| section("CERTIFICATE", der).to_string()).collect()
}

pub fn key(pkcs8: &[u8]) -> Zeroizing<String> {
    section("PRIVATE KEY", pkcs8)
}

/// All certificates of a file, in their order; none when it has none, or is no PEM.
pub fn read_certificates(text: &str) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    read.unwrap_or_default()
}

/// The first private key of a file, if it is PKCS #8.
pub fn read_key(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
    Some(Zeroizing::new(key.secret_pkcs8_der().to_vec()))
}

fn section(label: &str, der: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const LINE: usize = 64;
    let mut text = Zeroizing::new(String::with_capacity(der.len() * 3 / 2 + 80));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut column = 0;
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let known = digit <= group.len();
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if known { char::from(DIGITS[value as usize]) } else { '=' });
        }
        column += 4;
        if column == LINE {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 37 + length) as u8).collect();
            let text = key(&bytes);
            assert_eq!(read_key(&text).as_deref(), Some(&bytes), "{length}");
            let chain = [CertificateDer::from(bytes.clone()), CertificateDer::from(vec![1, 2])];
            assert_eq!(read_certificates(&certificates(&chain)), chain, "{length}");
        }
        assert!(read_certificates("no certificate").is_empty());
        assert!(read_key("-----BEGIN PRIVATE KEY-----\n%\n-----END PRIVATE KEY-----\n").is_none());
    }
}

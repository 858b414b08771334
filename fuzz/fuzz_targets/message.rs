//! Messages from a peer: the input is a payload, or the data of a message of the type that its first byte names, or what consensus
//! reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rnp::{Envelope, Kind};

/// A message of this type whose data is whatever it is.
fn message(kind: Kind, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x85];
    let mut put = |text: &str| {
        out.push(0xa0 | text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    };
    put("type");
    put(kind.name());
    put("sender");
    put("node_2");
    put("id");
    out.push(7);
    out.extend_from_slice(b"\xa9timestamp\x09\xa4data");
    out.extend_from_slice(data);
    out
}

fuzz_target!(|input: &[u8]| {
    let Some((what, bytes)) = input.split_first() else { return };
    let payload = match Kind::ALL.get(usize::from(*what)) {
        Some(kind) => message(*kind, bytes),
        None if *what == u8::MAX => return consensus_sim::read_message(bytes),
        None => bytes.to_vec(),
    };
    if let Ok(envelope) = Envelope::decode(&payload) {
        assert_eq!(Envelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));
    }
});

//! What targets share: genuine material, and inputs that are changes to it.

/// Made once by `net::identity`, so that an input means the same in every run: an authority of cluster `prod`, the certificate that it
/// issued to controller 2 at [`NOW_MS`] for a week, that node's key, and its request.
pub const AUTHORITY: &[u8] = include_bytes!("../fixed/authority.der");
pub const LEAF: &[u8] = include_bytes!("../fixed/leaf.der");
pub const KEY: &[u8] = include_bytes!("../fixed/key.pkcs8");
pub const REQUEST: &[u8] = include_bytes!("../fixed/request.der");

pub const NOW_MS: u64 = 1_795_000_000_000;

/// Changes bytes as `changes` say: a place (two bytes), what to do there, and a byte to do it with.
pub fn change(bytes: &mut Vec<u8>, changes: &[u8]) {
    for change in changes.chunks_exact(4) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % (bytes.len() + 1);
        match change[2] % 3 {
            0 => bytes.insert(place, change[3]),
            1 if place < bytes.len() => drop(bytes.remove(place)),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = change[3];
                }
            }
        }
    }
}

/// The input as its length and so many bytes, again and again.
pub use store::fuzzing::parts;

//! Payloads made smaller: the length before, four bytes big-endian, then one LZ4 block.

use bytes::{Bytes, BytesMut};

use crate::frame::{COMPRESS_ABOVE_BYTES, FrameError};

/// What one byte on the wire may at most become: a small frame must not cost its reader much memory.
pub(crate) const RATIO_MAX: usize = 20;

const LENGTH_BYTES: usize = 4;

/// The compressed payload, when it is smaller by a tenth and more, and not smaller than its reader accepts.
pub(crate) fn compress(payload: &[u8]) -> Option<BytesMut> {
    if payload.len() <= COMPRESS_ABOVE_BYTES {
        return None;
    }
    let mut out = BytesMut::zeroed(LENGTH_BYTES + lz4_flex::block::get_maximum_output_size(payload.len()));
    let length = u32::try_from(payload.len()).ok()?;
    out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    let block = lz4_flex::block::compress_into(payload, &mut out[LENGTH_BYTES..]).ok()?;
    out.truncate(LENGTH_BYTES + block);
    let worth_it = out.len() <= payload.len() - payload.len() / 10;
    if !worth_it {
        return None;
    }
    // What would shrink further than readers accept goes as it is.
    (payload.len() <= out.len() * RATIO_MAX).then_some(out)
}

pub(crate) fn decompress(bytes: &[u8], limit: usize) -> Result<Bytes, FrameError> {
    let (length, block) =
        bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(FrameError::Compression("it is cut short"))?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if length > bytes.len() * RATIO_MAX {
        return Err(FrameError::Compression("it claims to shrink to less than a twentieth"));
    }
    // At most twenty times what has arrived, which the lines above have made sure of.
    let mut out = BytesMut::zeroed(length);
    match lz4_flex::block::decompress_into(block, &mut out) {
        Ok(written) if written == length && length > 0 => Ok(out.freeze()),
        Ok(_) => Err(FrameError::Compression("it is not as long as it says")),
        Err(_) => Err(FrameError::Compression("it is damaged")),
    }
}

/// A compressed payload that claims what it does not hold, for tests of those who read it.
#[cfg(test)]
fn claiming(length: u32, block: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), block].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that is the same in every run.
    fn noise(seed: u32) -> impl Iterator<Item = u8> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
    }

    fn text(bytes: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["star", "nursery", "agent", "leader", "voter", "watcher", "frame", "snapshot"];
        noise(3).flat_map(|byte| WORDS[usize::from(byte) % 8].bytes()).take(bytes).collect()
    }

    #[test]
    fn payloads_come_back() {
        for bytes in [1_025, 5_000, 70_000] {
            let payload = text(bytes);
            let smaller = compress(&payload).expect("text shrinks");
            assert!(smaller.len() < payload.len() * 9 / 10);
            assert_eq!(decompress(&smaller, 1 << 20).unwrap(), payload);
        }
    }

    #[test]
    fn what_is_short_or_does_not_shrink_or_shrinks_too_far_stays() {
        assert_eq!(compress(&text(1_024)), None);
        let noise: Vec<u8> = noise(1).take(4_000).collect();
        assert_eq!(compress(&noise), None);
        assert_eq!(compress(&vec![0; 100_000]), None);
    }

    #[test]
    fn lies_are_refused_before_they_cost_memory() {
        let refused = |bytes: &[u8]| decompress(bytes, 1 << 20).unwrap_err();
        assert_eq!(refused(&[0, 0, 1]), FrameError::Compression("it is cut short"));
        assert_eq!(refused(&claiming(u32::MAX, &[0; 10])), FrameError::TooLong { length: 0xffff_ffff, limit: 1 << 20 });
        let bomb = FrameError::Compression("it claims to shrink to less than a twentieth");
        assert_eq!(refused(&claiming(1 << 20, &[0; 100])), bomb);
        let whole = compress(&text(5_000)).unwrap();
        assert!(matches!(refused(&claiming(4_999, &whole[4..])), FrameError::Compression(_)));
        assert!(matches!(refused(&claiming(5_001, &whole[4..])), FrameError::Compression(_)));
        assert!(matches!(refused(&claiming(0, &[])), FrameError::Compression(_)));
    }
}

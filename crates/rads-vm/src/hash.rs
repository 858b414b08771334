//! Hashing of keys: a seeded folded multiplication, so that a program's input cannot aim at one bucket, and a run with
//! the same seed is the same run.

use std::hash::{BuildHasher, Hasher};

/// Odd constants with about half their bits set (digits of π), so that a multiplication spreads every input bit.
const MIX: u64 = 0x243f_6a88_85a3_08d3;
const STEP: u64 = 0x1319_8a2e_0370_7345;

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// The hash of some bytes under a seed.
pub(crate) fn bytes(seed: u64, data: &[u8]) -> u64 {
    let mut state = seed ^ MIX;
    let (words, rest) = data.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), STEP ^ seed);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = fold(state ^ u64::from_le_bytes(last), STEP ^ seed);
    fold(state ^ data.len() as u64, MIX)
}

/// Builds hashers with a fixed seed, for tables whose keys come from the program text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fixed;

impl BuildHasher for Fixed {
    type Hasher = FixedHasher;
    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(MIX)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, data: &[u8]) {
        self.0 = bytes(self.0, data);
    }
    fn write_u8(&mut self, n: u8) {
        self.0 = fold(self.0 ^ u64::from(n), STEP);
    }
    fn write_u32(&mut self, n: u32) {
        self.0 = fold(self.0 ^ u64::from(n), STEP);
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = fold(self.0 ^ n, STEP);
    }
}

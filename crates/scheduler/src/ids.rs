//! Ids of stars, and other choices that nobody has a reason for.

use model::StarId;

/// Star ids from a seed: the same seed gives the same ids, and different agents different ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next id that is not `taken`.
    pub fn next(&mut self, taken: impl Fn(StarId) -> bool) -> StarId {
        loop {
            let id = StarId(self.random());
            if !taken(id) {
                return id;
            }
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    pub(crate) fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_seed_and_avoid_those_taken() {
        let (mut a, mut b) = (Ids::new(7), Ids::new(7));
        let first = a.next(|_| false);
        assert_eq!(first, b.next(|_| false));
        let mut c = Ids::new(7);
        assert_ne!(c.next(|id| id == first), first);
        assert_ne!(Ids::new(8).next(|_| false), first);
    }
}

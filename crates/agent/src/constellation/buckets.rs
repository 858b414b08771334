//! How often somebody may ask: a bucket each, that fills with time and is emptied by requests.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How large buckets are and how fast they fill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Requests at once.
    pub(crate) burst: u32,
    /// For one more.
    pub(crate) each: Duration,
}

/// Of each bucket the moment at which it will be full again; full ones are not kept.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    max: usize,
    full_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Of at most `max` keys at once: with one more, those are forgotten that are nearest to being full.
    pub(crate) fn new(rate: Rate, max: usize) -> Self {
        Self { rate, max, full_at: HashMap::new() }
    }

    /// How long until a request of this key may be made.
    pub(crate) fn wait(&self, key: &K, now: Instant) -> Duration {
        let full_at = self.full_at.get(key).copied().unwrap_or(now);
        let held = self.rate.each * (self.rate.burst - 1);
        full_at.saturating_duration_since(now).saturating_sub(held)
    }

    /// Notes one request, whether it had to wait or not.
    pub(crate) fn note(&mut self, key: K, now: Instant) {
        if self.full_at.len() >= self.max && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= self.max {
                self.drop_fullest();
            }
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = (*full_at).max(now) + self.rate.each;
    }

    fn drop_fullest(&mut self) {
        let Some(first) = self.full_at.values().min().copied() else { return };
        self.full_at.retain(|_, full_at| *full_at > first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, each: Duration::from_secs(2) };

    #[test]
    fn a_burst_is_free_and_then_each_waits_its_turn() {
        let (mut buckets, now) = (Buckets::new(RATE, 8), Instant::now());
        for _ in 0..3 {
            assert_eq!(buckets.wait(&1, now), Duration::ZERO);
            buckets.note(1, now);
        }
        assert_eq!(buckets.wait(&1, now), Duration::from_secs(2));
        assert_eq!(buckets.wait(&2, now), Duration::ZERO);
        let later = now + Duration::from_secs(2);
        assert_eq!(buckets.wait(&1, later), Duration::ZERO);
        buckets.note(1, later);
        assert_eq!(buckets.wait(&1, later), Duration::from_secs(2));
        assert_eq!(buckets.wait(&1, later + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn many_keys_take_no_more_room_than_there_is() {
        let (mut buckets, now) = (Buckets::new(RATE, 8), Instant::now());
        for _ in 0..3 {
            buckets.note(0, now);
        }
        for key in 1..1_000 {
            buckets.note(key, now);
            assert!(buckets.full_at.len() <= 8);
        }
        // The one that is nearly empty is remembered longest.
        assert!(buckets.wait(&0, now) > Duration::ZERO);
    }
}

//! Counts of values by powers of two, under the name of a library that openraft links.
//!
//! openraft keeps histograms of its batches that nobody here reads. The library it makes them with fills 25 MiB of tables
//! when the first one is made, in every agent. `[patch.crates-io]` in the workspace's manifest puts this crate in its place:
//! half a kibibyte a histogram, no tables, what openraft calls of that library and nothing more. A value is told to within
//! a factor of two.

#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// One for zero and one for each number of bits a value can have.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each size were recorded. `T` is for callers that name it; nothing is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// By the number of bits of the value.
    counts: [u64; BUCKETS],
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One that counted nothing yet.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], of: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value as often as is said.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.counts[bits] = self.counts[bits].saturating_add(times);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Where the values lie; zeros when there are none.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.at_permille(1),
            p1: self.at_permille(10),
            p5: self.at_permille(50),
            p10: self.at_permille(100),
            p50: self.at_permille(500),
            p90: self.at_permille(900),
            p99: self.at_permille(990),
            p99_9: self.at_permille(999),
        }
    }

    /// The least value of the bucket in which the given thousandth of all values is reached.
    fn at_permille(&self, permille: u64) -> u64 {
        let wanted = (u128::from(self.total()) * u128::from(permille)).div_ceil(1000).max(1);
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        match reached {
            None | Some(0) => 0,
            Some(bits) => 1 << (bits - 1),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the values of a histogram lie: `p90` is the size that nine of ten do not exceed by more than a factor of two, and
/// the others are the same of other shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there are.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "n={samples} p50={p50} p90={p90} p99={p99} p99.9={p99_9}")
    }
}

/// Several histograms below each other.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()> {
    rows: Vec<(String, Histogram<T>)>,
}

impl<T> AsciiChart<T> {
    /// One without rows.
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// With one row more.
    #[allow(clippy::should_implement_trait, reason = "the name its caller has for it")]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.rows.push((name.to_owned(), histogram));
        self
    }

    /// As text: a line a histogram.
    pub fn detailed(&self) -> impl fmt::Display {
        let lines = self.rows.iter().map(|(name, histogram)| format!("{name}: {}\n", histogram.percentile_stats()));
        lines.collect::<String>()
    }
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn nothing_counted_is_all_zeros() {
        let stats = of([]).percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99_9), (0, 0, 0));
    }

    #[test]
    fn a_percentile_is_within_a_factor_of_two() {
        let stats = of(1..=1000).percentile_stats();
        assert_eq!(stats.samples, 1000);
        for (got, exact) in [(stats.p0_1, 1), (stats.p10, 100), (stats.p50, 500), (stats.p90, 900), (stats.p99_9, 999)]
        {
            assert!(got <= exact && exact < got * 2, "{got} for {exact}");
        }
    }

    #[test]
    fn the_ends_of_what_a_value_can_be_are_counted() {
        let stats = of([0, u64::MAX]).percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p99), (2, 0, 1 << 63));
    }

    #[test]
    fn a_chart_has_a_line_for_each() {
        let chart = AsciiChart::new().add("appended", of([3])).add("applied", of([]));
        assert_eq!(
            chart.detailed().to_string(),
            "appended: n=1 p50=2 p90=2 p99=2 p99.9=2\napplied: n=0 p50=0 p90=0 p99=0 p99.9=0\n"
        );
    }

    /// What it is for: the library in whose place it stands needs 25 MiB for the first.
    #[test]
    fn one_takes_half_a_kibibyte() {
        assert_eq!(size_of::<Histogram>(), 520);
    }
}

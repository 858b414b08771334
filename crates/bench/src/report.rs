//! The one line format of every figure: `name value unit target ok|MISS note`, columns split by two spaces.

use std::fmt::Write as _;

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside ours for comparison; never a miss.
    None,
}

/// Collects figures, prints each as it comes, and remembers whether any missed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, target: Target, note: &str) {
        let (target_text, reached) = match target {
            Target::AtMost(limit) => (format!("<={}", number(limit)), value <= limit),
            Target::AtLeast(limit) => (format!(">={}", number(limit)), value >= limit),
            Target::None => ("-".to_owned(), true),
        };
        let verdict = if reached { "ok" } else { "MISS" };
        println!("{name:<34}  {:>10}  {unit:<7}  {target_text:>9}  {verdict:<4}  {note}", number(value));
        if !reached {
            self.missed.push(name.to_owned());
        }
    }

    /// Says why something was not measured. Not a miss: the machine lacks it, not the project.
    pub(crate) fn skipped(&self, name: &str, reason: &str) {
        println!("{name:<34}  {:>10}  {:<7}  {:>9}  skip  {reason}", "-", "-", "-");
    }

    /// Ours failed to run at all, which no figure excuses.
    pub(crate) fn failed(&mut self, name: &str, reason: &str) {
        println!("{name:<34}  {:>10}  {:<7}  {:>9}  MISS  {reason}", "-", "-", "-");
        self.missed.push(name.to_owned());
    }

    /// Another process has printed its lines, and one of them is a miss.
    pub(crate) fn missed_elsewhere(&mut self, name: &str) {
        self.missed.push(name.to_owned());
    }

    pub(crate) fn missed(&self) -> &[String] {
        &self.missed
    }
}

/// Durations in milliseconds, or any other samples, told by their middle and their spread.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Empty samples are a fault of the caller's measurement, reported as such by `None`.
    pub(crate) fn new(mut values: Vec<f64>) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Some(Self(values))
    }

    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let last = self.0.len() - 1;
        let rank = (q * last as f64).round() as usize;
        self.0[rank.min(last)]
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `n=100 min 2.1 p99 4.0 max 5.2`: what a median hides.
    pub(crate) fn spread(&self) -> String {
        let mut text = format!("n={}", self.0.len());
        for (name, q) in [("min", 0.0), ("p99", 0.99), ("max", 1.0)] {
            let _ = write!(text, " {name} {}", number(self.quantile(q)));
        }
        text
    }
}

/// Three significant digits: more would claim a precision that no figure here has.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_tell_their_middle_and_their_spread() {
        let samples = Samples::new((1..=101).map(f64::from).collect()).unwrap();
        assert_eq!(samples.median(), 51.0);
        assert_eq!(samples.quantile(0.99), 100.0);
        assert_eq!(samples.spread(), "n=101 min 1.00 p99 100 max 101");
        assert!(Samples::new(Vec::new()).is_none());
    }

    #[test]
    fn a_figure_beyond_its_target_is_a_miss() {
        let mut report = Report::default();
        report.figure("a", 4.0, "ms", Target::AtMost(5.0), "");
        report.figure("b", 6.0, "ms", Target::AtMost(5.0), "");
        report.figure("c", 6.0, "x", Target::AtLeast(10.0), "");
        report.figure("d", 6.0, "x", Target::None, "");
        assert_eq!(report.missed(), ["b", "c"]);
    }
}

//! How well this node does itself (Dadgar, Phillips and Currey, "Lifeguard: local health awareness for more accurate failure
//! detection", 2018). A node that is slow, stopped or deaf sees everybody else fail; before it accuses, it gives more time.

use std::time::Duration;

/// 0 is well. 8 makes every time nine times as long, as in Lifeguard's measurements.
pub(crate) const SCORE_MAX: u8 = 8;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Health {
    score: u8,
    /// Off in tests that show what it is for.
    off: bool,
}

impl Health {
    pub(crate) fn new(on: bool) -> Self {
        Self { score: 0, off: !on }
    }

    pub(crate) fn score(self) -> u8 {
        self.score
    }

    pub(crate) fn worsen(&mut self, by: u8) {
        if !self.off {
            self.score = self.score.saturating_add(by).min(SCORE_MAX);
        }
    }

    pub(crate) fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(crate) fn stretch(self, time: Duration) -> Duration {
        time * (u32::from(self.score) + 1)
    }

    /// Whether a member that did not answer may be accused. When fewer than a quarter of several helpers were heard either, this node
    /// is probably deaf: it doubts itself, until it has done so as often as it can.
    pub(crate) fn may_accuse(&mut self, asked: usize, heard: usize) -> bool {
        let deaf = asked >= 2 && heard * 4 < asked;
        let may = self.off || !deaf || self.score == SCORE_MAX;
        if deaf {
            self.worsen(2);
        }
        may
    }
}

//! How the stars of a service are replaced when it changes: what a user says of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};

/// What a service says of its roll-outs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Update {
    pub strategy: UpdateStrategy,
    /// Stars beyond the wanted number while replacing: rounded up, and at least one if it is a part above nothing. More is faster and
    /// takes more memory.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub max_surge: Amount,
    /// Stars that may be missing while replacing: rounded down.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub max_unavailable: Amount,
    /// Milliseconds for which a new star must have been ready before it makes up for an old one.
    pub healthy_ms: u32,
    /// Milliseconds from the change to its end. What has not come about by then has failed.
    pub deadline_ms: u64,
    /// Milliseconds after which stars that are tried, all of them healthy, are believed. `None`: somebody says so.
    pub promote_after_ms: Option<u64>,
    /// Of a hundred requests to the new stars so many may fail; more, and the change has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors_percent: Option<u32>,
    pub on_failure: OnFailure,
    /// What a new value of a secret that its stars have is for them.
    pub on_secret: OnSecret,
}

/// Which of the new stars come before which of the old ones go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum UpdateStrategy {
    /// A few at a time.
    #[default]
    Rolling,
    /// Some new ones beside all of the old, which get requests as these do; when they are believed, as `Rolling`.
    Canary {
        #[cfg_attr(feature = "schema", schema(value_type = String))]
        stars: Amount,
    },
    /// All of the new ones beside all of the old, without requests; when they are believed, requests go to them alone.
    BlueGreen,
}

/// What becomes of a change that has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum OnFailure {
    /// The version before it comes back.
    #[default]
    Rollback,
    /// It stays as far as it came, until somebody says what is to be.
    Hold,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum OnSecret {
    /// They are replaced, as by `restart`.
    #[default]
    Restart,
    /// Each has the value from its start.
    Keep,
}

/// A number of stars, or a part of those that are wanted: `2`, `25%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Amount {
    Stars(u32),
    Percent(u32),
}

/// What became of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// All its stars ran.
    Good,
    /// The next one came before they did.
    Overtaken,
    Failed {
        reason: String,
    },
}

/// What somebody wants of a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RolloutTurn {
    /// What is tried is believed.
    Promote,
    /// The version before comes back.
    Abort,
    /// It goes no further for now.
    Pause,
    /// It goes on.
    Resume,
}

impl RolloutTurn {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl Update {
    /// Ten minutes: stars that load for long become ready within it, and nobody waits for it over lunch.
    pub const DEADLINE_DEFAULT_MS: u64 = 600_000;
    /// A second is less than some programs take to start at all.
    pub const DEADLINE_MIN_MS: u64 = 1_000;
    /// A month; beyond it a deadline is none.
    pub const DEADLINE_MAX_MS: u64 = 31 * 86_400_000;

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether new stars are tried before the old ones begin to go.
    pub fn has_trial(&self) -> bool {
        self.strategy != UpdateStrategy::Rolling
    }

    /// How many new stars are tried, of so many that are wanted.
    pub fn trial(&self, stars: u32) -> Option<u32> {
        match self.strategy {
            UpdateStrategy::Rolling => None,
            UpdateStrategy::Canary { stars: amount } => Some(amount.up(stars).clamp(1, stars.max(1))),
            UpdateStrategy::BlueGreen => Some(stars),
        }
    }

    /// How many stars there may be beyond `stars`, and how many may be missing.
    pub fn room(&self, stars: u32) -> (u32, u32) {
        let missing = self.max_unavailable.down(stars);
        let surge = self.max_surge.up(stars);
        // Of few stars a part may be none: then one more is the way on.
        if surge == 0 && missing == 0 { (1, 0) } else { (surge, missing) }
    }

    /// Refuses what could never end well.
    ///
    /// # Errors
    /// Names what contradicts what.
    pub fn check(&self, singleton: bool) -> Result<(), Problem> {
        let refused = |message: String, help: &str| Err(Problem::new(Code::InvalidValue, message).help(help));
        if singleton && self.has_trial() {
            let message = format!("a `singleton` has one star: there is none beside it for `{}`", self.strategy);
            return refused(message, "leave `strategy` out: the next one starts when the last has ended");
        }
        if self.max_surge.is_nothing() && self.max_unavailable.is_nothing() {
            let message = "with neither `max_surge` nor `max_unavailable` no star could ever be replaced".to_owned();
            return refused(message, "let one more run (`max_surge: 1`), or one be missing (`max_unavailable: 1`)");
        }
        for (name, amount) in [("max_surge", self.max_surge), ("max_unavailable", self.max_unavailable)] {
            if let Amount::Percent(percent) = amount
                && percent > 100
            {
                return refused(
                    format!("`{name}` is at most 100%, not {percent}%"),
                    "write a number of stars for more",
                );
            }
        }
        if !(Self::DEADLINE_MIN_MS..=Self::DEADLINE_MAX_MS).contains(&self.deadline_ms) {
            let message = format!(
                "a roll-out has between {} and {} seconds, not {}",
                Self::DEADLINE_MIN_MS / 1_000,
                Self::DEADLINE_MAX_MS / 1_000,
                self.deadline_ms as f64 / 1_000.0
            );
            return refused(message, "`deadline_seconds` says how many");
        }
        let patience = u64::from(self.healthy_ms) + self.promote_after_ms.unwrap_or_default();
        if patience >= self.deadline_ms {
            let message = format!(
                "new stars are to be healthy for {} seconds, and the roll-out has only {}",
                patience as f64 / 1_000.0,
                self.deadline_ms as f64 / 1_000.0
            );
            return refused(message, "give it more with `deadline_seconds`, or ask for less");
        }
        if self.promote_after_ms.is_some() && !self.has_trial() {
            let message = "`promote_after_seconds` is for stars that are tried".to_owned();
            return refused(message, "say `strategy: \"canary\"` or `\"blue_green\"`, or leave it out");
        }
        if let Some(percent @ 100..) = self.errors_percent {
            let message = format!("with `errors_percent: {percent}` every request may fail");
            return refused(message, "say how many of a hundred may, such as 5, or leave it out");
        }
        if self.errors_percent.is_some() && self.strategy == UpdateStrategy::BlueGreen {
            let message =
                "stars of `blue_green` get no requests before they are believed: there are none that could fail";
            return refused(message.to_owned(), "leave `errors_percent` out, or say `strategy: \"canary\"`");
        }
        if let UpdateStrategy::Canary { stars } = self.strategy
            && (stars.is_nothing() || matches!(stars, Amount::Percent(101..)))
        {
            return refused(
                format!("`canary` is a number of stars or a part of them, not `{stars}`"),
                "say 1, or \"10%\"",
            );
        }
        Ok(())
    }
}

impl Default for Update {
    fn default() -> Self {
        Self {
            strategy: UpdateStrategy::Rolling,
            max_surge: Amount::Percent(25),
            max_unavailable: Amount::Stars(0),
            healthy_ms: 0,
            deadline_ms: Self::DEADLINE_DEFAULT_MS,
            promote_after_ms: None,
            errors_percent: None,
            on_failure: OnFailure::Rollback,
            on_secret: OnSecret::Restart,
        }
    }
}

impl fmt::Display for UpdateStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolling => f.write_str("rolling"),
            Self::Canary { stars } => write!(f, "canary of {stars}"),
            Self::BlueGreen => f.write_str("blue_green"),
        }
    }
}

impl Amount {
    /// Of so many, parts rounded up.
    pub fn up(self, stars: u32) -> u32 {
        match self {
            Self::Stars(count) => count,
            Self::Percent(percent) => part(percent, stars, 99),
        }
    }

    fn down(self, stars: u32) -> u32 {
        match self {
            Self::Stars(count) => count.min(stars),
            Self::Percent(percent) => part(percent, stars, 0),
        }
    }

    fn is_nothing(self) -> bool {
        matches!(self, Self::Stars(0) | Self::Percent(0))
    }
}

fn part(percent: u32, stars: u32, rounding: u64) -> u32 {
    u32::try_from((u64::from(percent) * u64::from(stars) + rounding) / 100).unwrap_or(u32::MAX)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stars(count) => count.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Amount {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let number = |digits: &str| digits.trim().parse::<u32>().ok();
        let amount = match text.trim().strip_suffix('%') {
            Some(digits) => number(digits).map(Self::Percent),
            None => number(text).map(Self::Stars),
        };
        amount.ok_or_else(|| {
            Problem::new(
                Code::InvalidValue,
                format!("`{}` is neither a number of stars nor a part", text.escape_debug()),
            )
            .help("write for example 2, or \"25%\" of those that are wanted")
        })
    }
}

impl TryFrom<String> for Amount {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> Self {
        amount.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_so_that_something_moves_and_enough_stays() {
        let room = |surge: &str, unavailable: &str, stars: u32| {
            let (max_surge, max_unavailable) = (surge.parse().unwrap(), unavailable.parse().unwrap());
            Update { max_surge, max_unavailable, ..Update::default() }.room(stars)
        };
        assert_eq!(room("25%", "0", 3), (1, 0));
        assert_eq!(room("25%", "0", 20), (5, 0));
        assert_eq!(room("0", "25%", 8), (0, 2));
        assert_eq!(room("0", "25%", 3), (1, 0), "a quarter of three is none: one more takes its place");
        assert_eq!(room("0", "5", 3), (0, 3));
        assert_eq!(room("100%", "0", 0), (1, 0));
    }

    #[test]
    fn what_could_never_end_is_refused() {
        let refused = |update: Update, singleton: bool| update.check(singleton).unwrap_err().message;
        let none = Amount::Stars(0);
        assert!(Update::default().check(true).is_ok());
        let stuck = Update { max_surge: none, ..Update::default() };
        assert!(refused(stuck, false).contains("no star could ever be replaced"));
        let short = Update { healthy_ms: 5_000, deadline_ms: 5_000, ..Update::default() };
        assert!(refused(short, false).contains("healthy for 5 seconds"));
        let single = Update { strategy: UpdateStrategy::BlueGreen, ..Update::default() };
        assert!(refused(single, true).contains("singleton"));
        let early = Update { promote_after_ms: Some(1_000), ..Update::default() };
        assert!(refused(early, false).contains("promote_after_seconds"));
        let nobody = Update { strategy: UpdateStrategy::Canary { stars: none }, ..Update::default() };
        assert!(refused(nobody, false).contains("canary"));
        let all = Update { errors_percent: Some(100), ..Update::default() };
        assert!(refused(all, false).contains("errors_percent: 100"));
        let unheard = Update { errors_percent: Some(5), strategy: UpdateStrategy::BlueGreen, ..Update::default() };
        assert!(refused(unheard, false).contains("no requests"));
    }

    #[test]
    fn an_amount_is_read_as_it_is_shown() {
        for text in ["0", "7", "25%", "100%"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        for text in ["", "%", "-1", "a quarter", "1.5"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_trial_has_at_least_one_star_and_at_most_all() {
        let trial = |amount: &str, stars| {
            Update { strategy: UpdateStrategy::Canary { stars: amount.parse().unwrap() }, ..Update::default() }
                .trial(stars)
        };
        assert_eq!(
            (trial("10%", 4), trial("10%", 50), trial("9", 4), trial("1", 0)),
            (Some(1), Some(5), Some(4), Some(1))
        );
    }
}

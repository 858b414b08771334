//! Where the stars of a service may go, and where they had better: what a user says of it.
//!
//! A condition is a line of text, `region = eu` or `disk in ssd, nvme`, which is how it is written, kept and shown; here is what
//! it means for a machine.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::machine::{LABEL_MAX_BYTES, NodeFacts};
use crate::name::Name;
use crate::problem::{Code, Problem};
use crate::taint::{Taint, Taints, Toleration};
use crate::update::Amount;

/// Most conditions of one kind of a service, and most values that one lists: each is asked of each machine.
pub const CONDITIONS_MAX: usize = 64;
/// Strongest wish, for or against.
pub const WEIGHT_MAX: i32 = 100;

/// What a service says of its places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Placement {
    #[serde(default, skip_serializing_if = "Strategy::is_default")]
    pub strategy: Strategy,
    /// A machine for which one of these does not hold gets none of its stars.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub require: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Preference>,
    /// Over whose values its stars are spread evenly: over those of the first, within each over those of the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub spread: Vec<Attribute>,
    /// How many stars more than the value with the fewest one of the first attribute of `spread` may have: rather than more, a
    /// star has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<u32>,
    /// Most of its stars on one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_node: Option<u32>,
    /// One star on each machine that may have one, instead of a number of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_node: bool,
    /// Taints of machines that keep its stars from none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerate: Vec<Toleration>,
    /// Services of its namespace with whose stars its own share no machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<Name>,
    /// The reservation of its namespace in whose places its stars are, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Name>,
    /// Who has the room where there is not enough for all.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// How many of its stars may be missing at once because they gave way to others.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    #[serde(default = "disruptions_default", skip_serializing_if = "is_disruptions_default")]
    pub disruptions: Amount,
}

/// From 0 to 100: for a star of a higher one, stars of lower ones give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Priority {
    pub const MAX: Self = Self(100);

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(50)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A quarter, and at least one.
const DISRUPTIONS_DEFAULT: Amount = Amount::Percent(25);

fn disruptions_default() -> Amount {
    DISRUPTIONS_DEFAULT
}

fn is_disruptions_default(amount: &Amount) -> bool {
    *amount == DISRUPTIONS_DEFAULT
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            require: Vec::new(),
            prefer: Vec::new(),
            spread: Vec::new(),
            max_skew: None,
            per_node: None,
            every_node: false,
            tolerate: Vec::new(),
            apart_from: Vec::new(),
            reservation: None,
            priority: Priority::default(),
            disruptions: DISRUPTIONS_DEFAULT,
        }
    }
}

/// Which of the machines that may have it gets the next star.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Strategy {
    /// That with the fewest stars of the service, of those the one with the fewest at all.
    #[default]
    Spread,
    /// That with the most stars, so that others stay free.
    Binpack,
    /// Any.
    Random,
}

/// A condition that is to hold rather than not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Preference {
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub that: Condition,
    /// From -100 to 100. 100 outweighs one star of the service more on a machine.
    pub weight: i32,
}

/// What is known of a machine under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Attribute {
    /// Its name.
    Node,
    Region,
    Zone,
    Rack,
    /// Number of processors.
    Cores,
    /// Megabytes (2^20) of memory.
    MemoryMb,
    /// Of the program it runs.
    Version,
    /// What its owner says of it.
    Label(String),
}

/// Whether a machine is as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    pub attribute: Attribute,
    pub test: Test,
}

impl Condition {
    /// The label that it is about, if it is about one.
    pub fn label(&self) -> Option<&str> {
        match &self.attribute {
            Attribute::Label(label) => Some(label),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// One of these.
    In(Vec<String>),
    /// None of these; a machine of which it is not known passes.
    NotIn(Vec<String>),
    /// As a number, or part by part as a version.
    Compared {
        as_version: bool,
        how: Comparison,
        with: String,
    },
    Exists,
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    AtMost,
    AtLeast,
    More,
}

impl Placement {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what no machine ever could be.
    ///
    /// # Errors
    /// Names the conditions that contradict each other.
    pub fn check(&self) -> Result<(), Problem> {
        let refused = |message: String| Err(Problem::new(Code::InvalidValue, message));
        let counts = [("require", self.require.len()), ("prefer", self.prefer.len()), ("spread", self.spread.len())];
        if let Some((what, count)) = counts.into_iter().find(|(_, count)| *count > CONDITIONS_MAX) {
            return refused(format!("`{what}` has at most {CONDITIONS_MAX} entries, not {count}"));
        }
        if let Some(wish) = self.prefer.iter().find(|wish| !(-WEIGHT_MAX..=WEIGHT_MAX).contains(&wish.weight)) {
            return refused(format!("a weight is from -{WEIGHT_MAX} to {WEIGHT_MAX}, not {}", wish.weight));
        }
        for (at, one) in self.require.iter().enumerate() {
            if let Some(other) = self.require[..at].iter().find(|other| other.contradicts(one)) {
                let message = format!("no machine can have both `{other}` and `{one}`");
                return Err(Problem::new(Code::InvalidValue, message).help("take one of them away"));
            }
        }
        if self.per_node == Some(0) {
            return refused("`per_node: 0` leaves no place for a star".to_owned());
        }
        if let Some(skew) = self.max_skew {
            if skew == 0 {
                return refused("`max_skew: 0` leaves no place for a star".to_owned());
            }
            if self.spread.is_empty() {
                let message = "`max_skew` is about what `spread` names, which is nothing".to_owned();
                return Err(Problem::new(Code::InvalidValue, message).help("for example `spread: [\"zone\"]`"));
            }
            if self.every_node {
                return refused("with `every_node` there is nothing to spread: it goes without `max_skew`".to_owned());
            }
        }
        if self.every_node && self.per_node.is_some() {
            return refused("with `every_node` a machine has one star: it goes without `per_node`".to_owned());
        }
        if self.tolerate.len() > CONDITIONS_MAX || self.apart_from.len() > CONDITIONS_MAX {
            return refused(format!("`tolerate` and `apart_from` have at most {CONDITIONS_MAX} entries each"));
        }
        if self.priority > Priority::MAX {
            return refused(format!("a priority is from 0 to {}, not {}", Priority::MAX, self.priority));
        }
        match self.disruptions {
            Amount::Percent(percent) if percent > 100 => {
                refused(format!("`disruptions` is at most 100%, not {percent}%"))
            }
            _ => Ok(()),
        }
    }

    /// What of it a machine breaks, whatever runs there.
    pub fn broken<'p>(&'p self, name: Option<&Name>, facts: &NodeFacts) -> impl Iterator<Item = &'p Condition> {
        self.require.iter().filter(move |condition| !condition.holds(name, facts))
    }

    /// Whether a machine with this name is as stars require, and no taint keeps them off it. One that has told nothing of itself is not.
    pub fn fits(&self, name: &Name, facts: &NodeFacts, taints: &Taints) -> bool {
        facts.are_told() && self.broken(Some(name), facts).next().is_none() && self.kept_off(taints).is_none()
    }

    /// The first taint that keeps its stars off a machine.
    pub fn kept_off<'t>(&self, taints: &'t Taints) -> Option<(&'t str, &'t Taint)> {
        let mut taints = taints.iter().map(|(name, taint)| (name.as_str(), taint));
        taints.find(|(name, taint)| !self.tolerate.iter().any(|toleration| toleration.covers(name, taint)))
    }

    /// Whether those that are on a machine are to leave it because of a taint.
    pub fn kept_off_for_good(&self, taints: &Taints) -> bool {
        let mut evicting = taints.iter().filter(|(_, taint)| taint.evicts);
        evicting.any(|(name, taint)| !self.tolerate.iter().any(|toleration| toleration.covers(name, taint)))
    }

    /// Most of its stars on one machine.
    pub fn most_per_node(&self) -> Option<u32> {
        if self.every_node { Some(1) } else { self.per_node }
    }

    /// How many of so many stars may be missing at once because they gave way.
    pub fn may_miss(&self, stars: u32) -> u32 {
        self.disruptions.up(stars)
    }
}

impl Strategy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::Binpack => "binpack",
            Self::Random => "random",
        }
    }
}

impl Attribute {
    /// Of a machine; `None` when it is not known.
    pub fn of<'a>(&self, name: Option<&'a Name>, facts: &'a NodeFacts) -> Option<Cow<'a, str>> {
        let number = |number: u64| (number > 0).then(|| Cow::Owned(number.to_string()));
        let named = |name: Option<&'a Name>| name.map(|name| Cow::Borrowed(name.as_str()));
        match self {
            Self::Node => named(name),
            Self::Region => named(facts.region.as_ref()),
            Self::Zone => named(facts.zone.as_ref()),
            Self::Rack => named(facts.rack.as_ref()),
            Self::Cores => number(facts.cores.into()),
            Self::MemoryMb => number(facts.memory.0 >> 20),
            Self::Version => (!facts.program.is_empty()).then_some(Cow::Borrowed(facts.program.as_str())),
            Self::Label(label) => facts.labels.get(label).map(|value| Cow::Borrowed(value.as_str())),
        }
    }
}

impl Condition {
    /// Whether it holds for a machine.
    pub fn holds(&self, name: Option<&Name>, facts: &NodeFacts) -> bool {
        let value = self.attribute.of(name, facts);
        let value = value.as_deref();
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Test::Compared { as_version, how, with } => value.is_some_and(|value| {
                let order = if *as_version { Some(by_version(value, with)) } else { by_number(value, with) };
                order.is_some_and(|order| how.holds(order))
            }),
        }
    }

    /// Whether no machine can have both. What is not found here no machine has either, but that is seen by looking at them.
    fn contradicts(&self, other: &Self) -> bool {
        let apart = |some: &[String], others: &[String]| some.iter().all(|value| !others.contains(value));
        self.attribute == other.attribute
            && match (&self.test, &other.test) {
                (Test::In(some), Test::In(others)) => apart(some, others),
                (Test::In(some), Test::NotIn(none)) | (Test::NotIn(none), Test::In(some)) => {
                    some.iter().all(|value| none.contains(value))
                }
                (Test::Missing, Test::Exists | Test::In(_) | Test::Compared { .. })
                | (Test::Exists | Test::In(_) | Test::Compared { .. }, Test::Missing) => true,
                _ => false,
            }
    }
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::AtLeast => order.is_ge(),
            Self::More => order.is_gt(),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::More => ">",
        }
    }
}

/// Nothing when one of them is no number.
fn by_number(value: &str, with: &str) -> Option<Ordering> {
    value.trim().parse::<f64>().ok()?.partial_cmp(&with.parse().ok()?)
}

/// Part by part, numbers as numbers; what has fewer parts comes first (1.2 before 1.2.1), except that what follows a `-` comes
/// before the same without it (1.2-beta before 1.2).
fn by_version(value: &str, with: &str) -> Ordering {
    let split = |version: &str| {
        let version = version.trim().trim_start_matches('v');
        let (release, early) =
            version.split_once('-').map_or((version, None), |(release, early)| (release, Some(early)));
        (release.to_owned(), early.map(str::to_owned))
    };
    let parts = |one: &str, other: &str| {
        let (mut some, mut others) = (one.split('.'), other.split('.'));
        loop {
            let order = match (some.next(), others.next()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    _ => a.cmp(b),
                },
            };
            if order.is_ne() {
                return order;
            }
        }
    };
    let ((release, early), (with, with_early)) = (split(value), split(with));
    parts(&release, &with).then_with(|| match (early, with_early) {
        (None, None) => Ordering::Equal,
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(early), Some(with)) => parts(&early, &with),
    })
}

impl FromStr for Attribute {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Ok(match text {
            "node" => Self::Node,
            "region" => Self::Region,
            "zone" => Self::Zone,
            "rack" => Self::Rack,
            "cores" => Self::Cores,
            "memory_mb" => Self::MemoryMb,
            "version" => Self::Version,
            label => {
                let is_odd = |c: char| c.is_whitespace() || c.is_control() || "=!<>,".contains(c);
                if label.is_empty() || label.len() > LABEL_MAX_BYTES || label.contains(is_odd) {
                    let message = format!("`{}` is not the name of a label", shortened(label));
                    return Err(Problem::new(Code::InvalidValue, message)
                        .help("write a label's name, or one of node, region, zone, rack, cores, memory_mb, version"));
                }
                Self::Label(label.to_owned())
            }
        })
    }
}

impl FromStr for Condition {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let refused = |why: &str| {
            let problem = Problem::new(Code::InvalidValue, format!("`{}` is not a condition: {why}", shortened(text)));
            problem.help("write `region = eu`, `disk in ssd, nvme`, `cores >= 4`, `gpu exists`, `zone != a`, `kernel version >= 6.1`")
        };
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| c.is_whitespace() || "=!<>".contains(c)).unwrap_or(trimmed.len());
        let (attribute, rest) = (&trimmed[..end], trimmed[end..].trim_start());
        if attribute.is_empty() {
            return Err(refused("it begins with no name"));
        }
        let attribute: Attribute = attribute.parse()?;
        let word = |word: &str| {
            let rest = rest.strip_prefix(word)?;
            (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
        };
        let listed = |values: &str| -> Result<Vec<String>, Problem> {
            let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
            match values.iter().any(|value| value.is_empty() || value.len() > LABEL_MAX_BYTES) {
                true => Err(refused("a value is missing or too long")),
                false if values.len() > CONDITIONS_MAX => Err(refused("it lists too many values")),
                false => Ok(values),
            }
        };
        let one = |value: &str| match value.trim() {
            value if value.contains(',') => Err(refused("one value has no comma; `in` takes several")),
            value => listed(value),
        };
        let compared = |rest: &str, as_version: bool| -> Option<Result<Test, Problem>> {
            use Comparison::{AtLeast, AtMost, Less, More};
            let signs = [("<=", AtMost), (">=", AtLeast), ("<", Less), (">", More)];
            let (sign, how) = signs.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
            let with = rest[sign.len()..].trim().to_owned();
            let is_sound =
                |with: &str| as_version && !with.contains(char::is_whitespace) || by_number(with, with).is_some();
            Some(match with.is_empty() || with.len() > LABEL_MAX_BYTES || !is_sound(&with) {
                true if as_version => Err(refused("it compares with no version")),
                true => Err(refused("it compares with no number; versions are compared by `version >=`")),
                false => Ok(Test::Compared { as_version, how, with }),
            })
        };
        let test = if word("exists") == Some("") {
            Test::Exists
        } else if word("missing") == Some("") {
            Test::Missing
        } else if let Some(values) = rest.strip_prefix("!=") {
            Test::NotIn(one(values)?)
        } else if let Some(values) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            Test::In(one(values)?)
        } else if let Some(values) = word("in") {
            Test::In(listed(values)?)
        } else if let Some(values) = word("not").and_then(|rest| rest.strip_prefix("in ")) {
            Test::NotIn(listed(values)?)
        } else if let Some(test) = word("version").and_then(|rest| compared(rest, true)) {
            test?
        } else if let Some(test) = compared(rest, attribute == Attribute::Version) {
            test?
        } else {
            return Err(refused("no comparison follows the name"));
        };
        Ok(Self { attribute, test })
    }
}

/// What somebody wrote, for one line.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let text = text.escape_debug().to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Region => "region",
            Self::Zone => "zone",
            Self::Rack => "rack",
            Self::Cores => "cores",
            Self::MemoryMb => "memory_mb",
            Self::Version => "version",
            Self::Label(label) => label,
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attribute, test } = self;
        match test {
            Test::Exists => write!(f, "{attribute} exists"),
            Test::Missing => write!(f, "{attribute} missing"),
            Test::In(values) if values.len() == 1 => write!(f, "{attribute} = {}", values[0]),
            Test::NotIn(values) if values.len() == 1 => write!(f, "{attribute} != {}", values[0]),
            Test::In(values) => write!(f, "{attribute} in {}", values.join(", ")),
            Test::NotIn(values) => write!(f, "{attribute} not in {}", values.join(", ")),
            Test::Compared { as_version, how, with } => {
                let version = if *as_version && *attribute != Attribute::Version { " version" } else { "" };
                write!(f, "{attribute}{version} {} {with}", how.as_str())
            }
        }
    }
}

macro_rules! as_text {
    ($kind:ty) => {
        impl TryFrom<String> for $kind {
            type Error = $crate::problem::Problem;

            fn try_from(text: String) -> Result<Self, $crate::problem::Problem> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    };
}

pub(crate) use as_text;

as_text!(Attribute);
as_text!(Condition);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn machine() -> NodeFacts {
        let labels = [("disk", "nvme"), ("size_gb", "512"), ("kernel", "6.1.0-13")];
        NodeFacts {
            memory: Bytes::mib(4_096),
            cores: 8,
            program: "0.3.1".to_owned(),
            region: Some("eu".parse().unwrap()),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..NodeFacts::default()
        }
    }

    fn holds(text: &str) -> bool {
        let condition: Condition = text.parse().unwrap();
        assert_eq!(condition.to_string().parse::<Condition>().unwrap(), condition, "as it is shown it is the same");
        condition.holds(Some(&"b".parse().unwrap()), &machine())
    }

    #[test]
    fn conditions_hold_for_a_machine_as_their_signs_say() {
        let true_of_it = [
            "region = eu",
            "region == eu",
            "region=eu",
            "region != us",
            "region in us, eu",
            "region not in us,asia",
            "node = b",
            "node in a, b",
            "cores >= 8",
            "cores < 9",
            "memory_mb > 4095",
            "disk exists",
            "gpu missing",
            "gpu != a100",
            "zone not in a, b",
            "size_gb >= 500.5",
            "kernel version >= 6.1",
            "kernel version < 6.10",
            "version >= 0.3",
            "version < 0.10",
            "version version > 0.2.9",
        ];
        for text in true_of_it {
            assert!(holds(text), "{text}");
        }
        let false_of_it = [
            "region = us",
            "region != eu",
            "region in us, asia",
            "region not in eu, us",
            "node != b",
            "cores > 8",
            "disk missing",
            "gpu exists",
            "gpu = a100",
            "gpu > 1",
            "disk > 1",
            "kernel > 6",
            "kernel version > 6.1.1",
            "version > 0.3.1",
            "Region = eu",
        ];
        for text in false_of_it {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn versions_are_compared_part_by_part() {
        let ordered = ["1", "1.2-beta", "1.2-beta.2", "1.2", "1.2.1", "1.10", "v2.0"];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(by_version(one, other), at.cmp(&other_at), "{one} and {other}");
            }
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_is_wrong() {
        let refused = [
            ("", "begins with no name"),
            ("= eu", "begins with no name"),
            ("region", "no comparison"),
            ("region eu", "no comparison"),
            ("region =", "a value is missing"),
            ("region in", "a value is missing"),
            ("region in a,,b", "a value is missing"),
            ("region = a, b", "`in` takes several"),
            ("cores > many", "no number"),
            ("kernel version >=", "no version"),
            ("region notin a", "no comparison"),
            ("region in\u{0}", "no comparison"),
        ];
        for (text, why) in refused {
            let problem = text.parse::<Condition>().unwrap_err();
            assert!(problem.message.contains(why), "{text}: {problem}");
        }
        let long = "x".repeat(1_000_000);
        assert!(long.parse::<Condition>().unwrap_err().message.len() < 400);
        let listed = format!("region in {}", vec!["a"; CONDITIONS_MAX + 1].join(","));
        assert!(listed.parse::<Condition>().unwrap_err().message.contains("too many values"));
    }

    #[test]
    fn what_no_machine_can_be_is_refused() {
        let contradictory = [
            ["region = eu", "region = us"],
            ["region in a, b", "region in c, d"],
            ["gpu missing", "gpu exists"],
            ["gpu = a100", "gpu missing"],
            ["region in a, b", "region not in b, a"],
        ];
        let placement = |require: &[&str]| Placement {
            require: require.iter().map(|text| text.parse().unwrap()).collect(),
            ..Placement::default()
        };
        for both in contradictory {
            let problem = placement(&both).check().unwrap_err();
            assert!(problem.message.contains(both[0]) && problem.message.contains(both[1]), "{problem}");
        }
        for fine in [["region in a, b", "region in b, c"], ["region = a", "zone = b"], ["gpu exists", "gpu = a100"]] {
            assert_eq!(placement(&fine).check(), Ok(()), "{fine:?}");
        }
        let none = [
            Placement { per_node: Some(0), ..Placement::default() },
            Placement { per_node: Some(1), every_node: true, ..Placement::default() },
            Placement { priority: Priority(101), ..Placement::default() },
            Placement { disruptions: Amount::Percent(101), ..Placement::default() },
            Placement { apart_from: vec!["a".parse().unwrap(); CONDITIONS_MAX + 1], ..Placement::default() },
        ];
        for placement in none {
            assert!(placement.check().is_err(), "{placement:?}");
        }
    }

    #[test]
    fn a_placement_is_kept_as_it_was_written_and_nothing_is_kept_of_none() {
        let text = r#"{"strategy":"binpack","require":["region = eu"],"prefer":[{"that":"disk in nvme, ssd","weight":-5}],"spread":["zone"],"per_node":2,"tolerate":["gpu","team = red"],"apart_from":["db"],"priority":80,"disruptions":"0"}"#;
        let placement: Placement = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&placement).unwrap(), text);
        assert_eq!(serde_json::to_string(&Placement::default()).unwrap(), "{}");
        assert!(serde_json::from_str::<Placement>(r#"{"require":["region"]}"#).is_err());
    }
}

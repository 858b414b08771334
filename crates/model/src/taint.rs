//! Machines that are not for everybody, and services that go there all the same.
//!
//! A taint is what an operator says of a machine: `gpu`, or `team = red`. A service that does not tolerate it gets no star there; where
//! it evicts, those that are there leave too.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::machine::LABEL_MAX_BYTES;
use crate::placement::{as_text, shortened};
use crate::problem::{Code, Problem};
use crate::schema::text_schema;

/// Most taints of one machine.
pub const TAINTS_MAX: usize = 16;

/// The taints of a machine, by name.
pub type Taints = BTreeMap<String, Taint>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Taint {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Stars that are there and do not tolerate it move elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evicts: bool,
}

/// What a service puts up with: `gpu` whatever its value, `team = red` with this one only, `*` everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Toleration {
    All,
    Any { name: String },
    Equal { name: String, value: String },
}

text_schema!(Toleration);
as_text!(Toleration);

impl Toleration {
    pub fn covers(&self, name: &str, taint: &Taint) -> bool {
        match self {
            Self::All => true,
            Self::Any { name: covered } => covered == name,
            Self::Equal { name: covered, value } => covered == name && taint.value.as_ref() == Some(value),
        }
    }
}

/// A name and what may be said of it, as it is typed: `gpu`, `team=red`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &str) -> Result<(String, Option<String>), Problem> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (text.trim(), None),
    };
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "=!<>,*".contains(c);
    let is_sound = |text: &str| !text.is_empty() && text.len() <= LABEL_MAX_BYTES && !text.contains(is_odd);
    match is_sound(name) && value.is_none_or(is_sound) {
        true => Ok((name.to_owned(), value.map(str::to_owned))),
        false => {
            let problem = Problem::new(Code::InvalidValue, format!("`{}` is not a taint", shortened(text)));
            Err(problem.help("write a name, or a name and a value: `gpu`, `team=red`"))
        }
    }
}

/// A taint as it is shown: `gpu`, `team = red`.
pub fn shown(name: &str, taint: &Taint) -> String {
    match &taint.value {
        Some(value) => format!("{name} = {value}"),
        None => name.to_owned(),
    }
}

impl FromStr for Toleration {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        Ok(match parse(text)? {
            (name, None) => Self::Any { name },
            (name, Some(value)) => Self::Equal { name, value },
        })
    }
}

impl fmt::Display for Toleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Any { name } => f.write_str(name),
            Self::Equal { name, value } => write!(f, "{name} = {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(value: Option<&str>) -> Taint {
        Taint { value: value.map(str::to_owned), evicts: false }
    }

    #[test]
    fn a_toleration_covers_what_it_names() {
        let covers = |text: &str, name: &str, value| text.parse::<Toleration>().unwrap().covers(name, &taint(value));
        assert!(covers("gpu", "gpu", None) && covers("gpu", "gpu", Some("a100")));
        assert!(covers("team = red", "team", Some("red")) && covers("team=red", "team", Some("red")));
        assert!(covers("*", "anything", Some("x")));
        assert!(!covers("gpu", "gpus", None) && !covers("team = red", "team", Some("blue")));
        assert!(!covers("team = red", "team", None) && !covers("team = red", "owner", Some("red")));
    }

    #[test]
    fn it_is_kept_as_it_is_shown_and_what_is_none_is_refused() {
        for text in ["gpu", "team = red", "*"] {
            assert_eq!(text.parse::<Toleration>().unwrap().to_string(), text);
        }
        for text in ["", "a b", "=", "a=", "=b", "a=b=c", "a,b", "a*", "a\u{0}"] {
            assert!(text.parse::<Toleration>().is_err(), "{text:?}");
        }
        let long = "x".repeat(1_000_000);
        assert!(long.parse::<Toleration>().unwrap_err().message.len() < 400);
    }
}

//! Processors by their numbers, written as the kernel writes them: `0-1,3`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many processors there can be. Machines have fewer for a while yet.
const MOST: u32 = 1024;
const BITS: u32 = u64::BITS;

/// Some processors, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = String))]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet([u64; (MOST / BITS) as usize]);

impl CpuSet {
    pub fn contains(&self, cpu: u32) -> bool {
        cpu < MOST && self.0[(cpu / BITS) as usize] & (1 << (cpu % BITS)) != 0
    }

    /// The first that is not among `others`.
    pub fn first_beyond(&self, others: &Self) -> Option<u32> {
        self.iter().find(|&cpu| !others.contains(cpu))
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..MOST).filter(|&cpu| self.contains(cpu))
    }
}

/// Why a text names no processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidCpuSet(String);

impl fmt::Display for InvalidCpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no list of processors below {MOST} such as `0-1,3`", self.0.escape_debug())
    }
}

impl std::error::Error for InvalidCpuSet {}

impl FromStr for CpuSet {
    type Err = InvalidCpuSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCpuSet(text.chars().take(40).collect());
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u32>().ok().filter(|&cpu| cpu < MOST),
            false => None,
        };
        let mut set = Self([0; (MOST / BITS) as usize]);
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = number(first).zip(number(last)).ok_or_else(invalid)?;
            if first > last {
                return Err(invalid());
            }
            for cpu in first..=last {
                set.0[(cpu / BITS) as usize] |= 1 << (cpu % BITS);
            }
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut text = String::new();
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            let comma = if text.is_empty() { "" } else { "," };
            text += &match first == last {
                true => format!("{comma}{first}"),
                false => format!("{comma}{first}-{last}"),
            };
        }
        f.pad(&text)
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

impl TryFrom<String> for CpuSet {
    type Error = InvalidCpuSet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(cpus: CpuSet) -> Self {
        cpus.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_read_and_write_as_the_kernels_do() {
        let check = |text: &str, expected: &str| assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), expected);
        check("0", "0");
        check("0-1,3", "0-1,3");
        check("3, 1,0 ,2", "0-3");
        check("63-64,1023", "63-64,1023");
        for text in ["", ",", "0,", "1-0", "-1", "0-", "a", "1024", "0-1024", "+1", "0x1", "99999999999", "1 2", "0\n1"]
        {
            assert!(text.parse::<CpuSet>().is_err(), "{text:?}");
        }
        let cpus: CpuSet = "0-2".parse().unwrap();
        assert_eq!(cpus.first_beyond(&"0-1".parse().unwrap()), Some(2));
        assert_eq!(cpus.first_beyond(&"0-7".parse().unwrap()), None);
        assert_eq!(serde_json::to_string(&cpus).unwrap(), "\"0-2\"");
        assert!(serde_json::from_str::<CpuSet>("\"\"").is_err());
    }
}

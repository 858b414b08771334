//! Names a person chooses: lower-case letters, digits and hyphens, one to 63 characters (a DNS label).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::schema::text_schema;

/// A checked name: `[a-z0-9-]{1,63}`, neither starting nor ending with a hyphen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

text_schema!(Name);

/// Longest name: a DNS label (RFC 1035, section 2.3.4).
pub const NAME_MAX_CHARS: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name: use 1 to {NAME_MAX_CHARS} of a-z, 0-9 and `-`, without `-` at either end", .0.escape_debug())]
pub struct InvalidName(pub String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace that is meant when none is written.
    pub fn default_namespace() -> Self {
        Self("default".to_owned())
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=NAME_MAX_CHARS).contains(&text.len());
        if fits && text.bytes().all(legal) && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text))
        } else {
            Err(InvalidName(text))
        }
    }
}

impl FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $key:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $key {
            pub namespace: Name,
            pub name: Name,
        }

        text_schema!($key);

        impl $key {
            pub fn in_default(name: Name) -> Self {
                Self { namespace: Name::default_namespace(), name }
            }
        }

        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.namespace == Name::default_namespace() {
                    f.pad(self.name.as_str())
                } else {
                    f.pad(&format!("{}/{}", self.namespace, self.name))
                }
            }
        }

        impl FromStr for $key {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                match text.split_once('/') {
                    Some((namespace, name)) => Ok(Self { namespace: namespace.parse()?, name: name.parse()? }),
                    None => Ok(Self::in_default(text.parse()?)),
                }
            }
        }

        impl TryFrom<String> for $key {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$key> for String {
            fn from(key: $key) -> String {
                key.to_string()
            }
        }
    };
}

key!(
    /// An app in its namespace; written `name`, or `namespace/name` outside the default one.
    AppKey
);
key!(
    /// A service in its namespace; written `name`, or `namespace/name` outside the default one.
    ServiceKey
);
impl ServiceKey {
    /// Another service of the same namespace.
    #[must_use]
    pub fn beside(&self, name: &Name) -> Self {
        Self { namespace: self.namespace.clone(), name: name.clone() }
    }
}

key!(
    /// A secret in its namespace; written `name`, or `namespace/name` outside the default one.
    SecretKey
);
key!(
    /// A volume in its namespace; written `name`, or `namespace/name` outside the default one.
    VolumeKey
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "web-1", "0", &"a".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "é", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_shows_its_namespace_only_when_it_is_not_the_default() {
        for text in ["web", "team-a/web"] {
            assert_eq!(text.parse::<ServiceKey>().unwrap().to_string(), text);
        }
        assert_eq!("default/web".parse::<ServiceKey>().unwrap().to_string(), "web");
        assert!("a/b/c".parse::<ServiceKey>().is_err());
    }
}

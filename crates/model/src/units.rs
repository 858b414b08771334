//! Amounts that carry their unit in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
}

impl Bytes {
    /// In the largest unit in which one decimal says it all: `10.5 MiB`, `1041 MiB`. For what is compared.
    pub fn exact(self) -> String {
        let says_all = |size: &u64| self.0 >= *size && (u128::from(self.0) * 10).is_multiple_of(u128::from(*size));
        match UNITS.iter().find(|(_, size)| says_all(size)) {
            Some((unit, size)) if self.0.is_multiple_of(*size) => format!("{} {unit}", self.0 / size),
            Some((unit, size)) => format!("{:.1} {unit}", self.0 as f64 / *size as f64),
            None => format!("{} B", self.0),
        }
    }
}

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match UNITS.iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) if self.0.is_multiple_of(*size) => format!("{} {unit}", self.0 / size),
            Some((unit, size)) => format!("{:.1} {unit}", self.0 as f64 / *size as f64),
            None => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}

/// Thousandths of one processor core: 250 is a quarter of a core, 2000 is two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Millicores(pub u32);

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.0 / 10, self.0 % 10) {
            (percent, 0) => format!("{percent} %"),
            (percent, tenths) => format!("{percent}.{tenths} %"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!(Bytes::mib(64).to_string(), "64 MiB");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
        assert_eq!(Bytes(7).to_string(), "7 B");
        assert_eq!(Millicores(250).to_string(), "25 %");
        assert_eq!(Millicores(5).to_string(), "0.5 %");
    }
}

//! Bytes that only one star is to know: not shown by `Debug`, and overwritten when they are dropped.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Private(Vec<u8>);

impl Private {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.0.fill(0);
        // Nobody reads them again, which must not be a reason to leave them as they are.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private(…)")
    }
}

impl Serialize for Private {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Private {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Private;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            // One copy, of the right size: a buffer that grows leaves others behind.
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Private, E> {
                Ok(Private(bytes.to_vec()))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Private, E> {
                Ok(Private(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_travels_whole_and_is_not_shown() {
        let private = Private::new(vec![1, 2, 3]);
        let bytes = rmp_serde::to_vec_named(&private).unwrap();
        assert_eq!(rmp_serde::from_slice::<Private>(&bytes).unwrap(), private);
        assert_eq!(format!("{private:?}"), "Private(…)");
    }
}

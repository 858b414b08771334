//! MessagePack walked once before anything is made of it: every length is there, nothing is nested too deep, and no byte is
//! left over. What comes after may trust the lengths.

/// Maps and arrays within each other, at most.
pub(crate) const DEPTH_MAX: usize = 32;

/// Where and why bytes are not the MessagePack they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) what: &'static str,
}

/// One value and where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Uint(u64),
    Str(&'a str),
    /// A map of this many pairs, and where the first begins.
    Map {
        pairs: usize,
        first: usize,
    },
    Other,
}

/// Reads the head of the value at `at`; says where it ends, its contents walked.
pub(crate) fn value(bytes: &[u8], at: usize) -> Result<(Value<'_>, usize), Fault> {
    let end = skip(bytes, at)?;
    let reader = Reader { bytes, at };
    Ok((reader.shallow()?, end))
}

/// Where the value that begins at `at` ends.
fn skip(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let mut reader = Reader { bytes, at };
    // How many values are missing at each level.
    let mut missing = [0_u64; DEPTH_MAX + 1];
    missing[0] = 1;
    let mut depth = 0;
    loop {
        while missing[depth] == 0 {
            if depth == 0 {
                return Ok(reader.at);
            }
            depth -= 1;
        }
        missing[depth] -= 1;
        let at = reader.at;
        if let Some(children) = reader.step()? {
            depth += 1;
            if depth > DEPTH_MAX {
                return Err(Fault { at, what: "values are nested too deep" });
            }
            missing[depth] = children;
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let taken = rest.get(..count).ok_or(Fault { at: self.at, what: "the bytes end within a value" })?;
        self.at += count;
        Ok(taken)
    }

    fn number(&mut self, bytes: u64) -> Result<u64, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Passes one value, or the head of a map or array: then how many values follow in it.
    fn step(&mut self) -> Result<Option<u64>, Fault> {
        let at = self.at;
        let marker = self.take(1)?[0];
        let skipped = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
            0x80..=0x8f => return Ok(Some(2 * u64::from(marker & 0x0f))),
            0x90..=0x9f => return Ok(Some(u64::from(marker & 0x0f))),
            0xa0..=0xbf => u64::from(marker & 0x1f),
            0xc1 => return Err(Fault { at, what: "the byte c1, which begins no value," }),
            0xc4 | 0xd9 => self.number(1)?,
            0xc5 | 0xda => self.number(2)?,
            0xc6 | 0xdb => self.number(4)?,
            0xc7 => self.number(1)? + 1,
            0xc8 => self.number(2)? + 1,
            0xc9 => self.number(4)? + 1,
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xca | 0xce | 0xd2 => 4,
            0xcb | 0xcf | 0xd3 => 8,
            0xd4..=0xd8 => 1 + (1 << (marker - 0xd4)),
            0xdc => return Ok(Some(self.number(2)?)),
            0xdd => return Ok(Some(self.number(4)?)),
            0xde => return Ok(Some(2 * self.number(2)?)),
            0xdf => return Ok(Some(2 * self.number(4)?)),
        };
        self.take(skipped)?;
        Ok(None)
    }

    /// The value at hand, whose bytes are known to be there.
    fn shallow(mut self) -> Result<Value<'a>, Fault> {
        let at = self.at;
        let marker = self.take(1)?[0];
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Fault { at, what: "text that is not UTF-8" });
        Ok(match marker {
            0x00..=0x7f => Value::Uint(u64::from(marker)),
            0xcc..=0xcf => Value::Uint(self.number(1 << (marker - 0xcc))?),
            0xa0..=0xbf => Value::Str(text(self.take(u64::from(marker & 0x1f))?)?),
            0xd9..=0xdb => {
                let length = self.number(1 << (marker - 0xd9))?;
                Value::Str(text(self.take(length)?)?)
            }
            0x80..=0x8f => Value::Map { pairs: usize::from(marker & 0x0f), first: self.at },
            0xde | 0xdf => {
                let pairs = self.number(if marker == 0xde { 2 } else { 4 })?;
                Value::Map { pairs: usize::try_from(pairs).unwrap_or(usize::MAX), first: self.at }
            }
            _ => Value::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_fault(bytes: &[u8], at: usize, what: &'static str) {
        assert_eq!(value(bytes, 0), Err(Fault { at, what }), "{bytes:02x?}");
    }

    #[test]
    fn every_kind_of_value_is_walked_to_its_end() {
        let kinds: &[&[u8]] = &[
            &[0x07],
            &[0xff],
            &[0xc0],
            &[0xc3],
            &[0xa2, b'h', b'i'],
            &[0xd9, 1, b'x'],
            &[0xda, 0, 1, b'x'],
            &[0xdb, 0, 0, 0, 1, b'x'],
            &[0xc4, 2, 0xff, 0xfe],
            &[0xc5, 0, 1, 9],
            &[0xc6, 0, 0, 0, 1, 9],
            &[0xca, 0, 0, 0, 0],
            &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xcc, 1],
            &[0xcf, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xd0, 1],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xd4, 5, 1],
            &[0xd8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xc7, 2, 5, 1, 1],
            &[0x92, 0x01, 0x81, 0xa1, b'k', 0xc0],
            &[0xdc, 0, 2, 1, 2],
            &[0xde, 0, 1, 1, 2],
            &[0xdf, 0, 0, 0, 1, 1, 2],
            &[0x90],
        ];
        for bytes in kinds {
            assert_eq!(value(bytes, 0).unwrap().1, bytes.len(), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                assert!(value(&bytes[..cut], 0).is_err(), "{bytes:02x?} cut to {cut}");
            }
        }
    }

    #[test]
    fn claims_beyond_the_bytes_are_refused_where_they_end() {
        check_fault(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1], 6, "the bytes end within a value");
        check_fault(&[0xc6, 0xff, 0xff, 0xff, 0xff, 1], 5, "the bytes end within a value");
        check_fault(&[0xc1], 0, "the byte c1, which begins no value,");
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(value(&nested(DEPTH_MAX), 0).is_ok());
        check_fault(&nested(DEPTH_MAX + 1), DEPTH_MAX, "values are nested too deep");
        assert!(value(&nested(1_000_000), 0).is_err());
    }
}

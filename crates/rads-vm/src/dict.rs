//! An ordered map from text to values: the form an object takes when its keys are data rather than names.
//!
//! Entries keep the order of insertion. Up to eight are searched in turn; beyond that an index of positions is kept,
//! hashed under the machine's seed so that input cannot be made to collide.

use crate::hash;
use crate::value::Value;

/// Below this many entries a scan beats hashing.
const SCAN_UP_TO: usize = 8;
const EMPTY: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    /// `None` once removed.
    key: Option<Box<str>>,
    hash: u32,
    value: Value,
}

#[derive(Debug, Default)]
pub(crate) struct Dict {
    entries: Vec<Entry>,
    /// Open addressing; a power of two long, or empty while scanning.
    index: Vec<u32>,
    live: usize,
    key_bytes: usize,
}

impl Dict {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn owned_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.index.capacity() * 4 + self.key_bytes
    }

    /// An upper bound of what `insert` of a new key may allocate.
    pub(crate) fn growth(&self, key: &str) -> usize {
        let entries = if self.entries.len() == self.entries.capacity() {
            self.entries.capacity().max(4) * size_of::<Entry>()
        } else {
            0
        };
        let count = self.entries.len() + 1;
        let reindexed = count > SCAN_UP_TO && count * 2 > self.index.len();
        let index = if reindexed { (index_size(count) - self.index.len()) * size_of::<u32>() } else { 0 };
        entries + index + key.len()
    }

    pub(crate) fn get(&self, seed: u64, key: &str) -> Option<Value> {
        self.find(seed, key).map(|at| self.entries[at].value)
    }

    pub(crate) fn contains(&self, seed: u64, key: &str) -> bool {
        self.find(seed, key).is_some()
    }

    pub(crate) fn insert(&mut self, seed: u64, key: &str, value: Value) {
        if let Some(at) = self.find(seed, key) {
            self.entries[at].value = value;
            return;
        }
        let hash = hash::bytes(seed, key.as_bytes()) as u32;
        let at = self.entries.len() as u32;
        self.key_bytes += key.len();
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.capacity().max(4));
        }
        self.entries.push(Entry { key: Some(key.into()), hash, value });
        self.live += 1;
        if self.entries.len() > SCAN_UP_TO {
            if self.entries.len() * 2 > self.index.len() {
                self.reindex();
            } else {
                self.place(hash, at);
            }
        }
    }

    pub(crate) fn remove(&mut self, seed: u64, key: &str) -> Option<Value> {
        let at = self.find(seed, key)?;
        let entry = &mut self.entries[at];
        let value = entry.value;
        self.key_bytes -= entry.key.take().map_or(0, |k| k.len());
        entry.value = Value::Null;
        self.live -= 1;
        // Holes are swept out once they are the majority, which keeps removal constant on average.
        if self.live * 2 < self.entries.len() {
            self.entries.retain(|e| e.key.is_some());
            self.reindex();
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Value)> + '_ {
        self.entries.iter().filter_map(|e| e.key.as_deref().map(|key| (key, e.value)))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.entries.iter().map(|e| e.value)
    }

    fn find(&self, seed: u64, key: &str) -> Option<usize> {
        if self.index.is_empty() {
            return self.entries.iter().position(|e| e.key.as_deref() == Some(key));
        }
        let hash = hash::bytes(seed, key.as_bytes()) as u32;
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let found = self.index[at];
            if found == EMPTY {
                return None;
            }
            let entry = &self.entries[found as usize];
            if entry.hash == hash && entry.key.as_deref() == Some(key) {
                return Some(found as usize);
            }
            at = (at + 1) & mask;
        }
    }

    fn reindex(&mut self) {
        if self.entries.len() <= SCAN_UP_TO {
            self.index = Vec::new();
            return;
        }
        self.index = vec![EMPTY; index_size(self.entries.len())];
        for at in 0..self.entries.len() {
            if self.entries[at].key.is_some() {
                self.place(self.entries[at].hash, at as u32);
            }
        }
    }

    fn place(&mut self, hash: u32, entry: u32) {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.index[at] = entry;
    }
}

/// A quarter full when it is made, half when it is made anew.
fn index_size(entries: usize) -> usize {
    (entries * 4).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(dict: &Dict) -> Vec<String> {
        dict.iter().map(|(k, _)| k.to_owned()).collect()
    }

    #[test]
    fn keeps_insertion_order_through_growth_and_removal() {
        let mut dict = Dict::default();
        for n in 0..100 {
            dict.insert(7, &format!("k{n}"), Value::Int(n));
        }
        for n in 0..100 {
            assert_eq!(dict.get(7, &format!("k{n}")).and_then(Value::as_int), Some(n));
        }
        for n in (0..100).filter(|n| n % 10 != 3) {
            assert!(dict.remove(7, &format!("k{n}")).is_some());
        }
        assert_eq!(keys(&dict), ["k3", "k13", "k23", "k33", "k43", "k53", "k63", "k73", "k83", "k93"]);
        assert_eq!(dict.len(), 10);
        dict.insert(7, "k3", Value::Int(-1));
        dict.insert(7, "z", Value::Null);
        assert_eq!(dict.get(7, "k3").and_then(Value::as_int), Some(-1));
        assert_eq!(keys(&dict).last().map(String::as_str), Some("z"));
        assert!(!dict.contains(7, "k4"));
    }

    #[test]
    fn growth_is_an_upper_bound() {
        let mut dict = Dict::default();
        for n in 0..5000 {
            let key = format!("key{n}");
            let bound = dict.owned_bytes() + dict.growth(&key);
            dict.insert(1, &key, Value::Null);
            assert!(dict.owned_bytes() <= bound, "{n}: {} > {bound}", dict.owned_bytes());
        }
    }
}

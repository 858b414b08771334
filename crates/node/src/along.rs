//! Walking several sorted maps side by side: for a decision about all machines each is looked up in all of them, and they come in order.

use std::iter::Peekable;

/// What a sorted sequence has for keys that are asked for in rising order.
pub(crate) struct Along<I: Iterator>(Peekable<I>);

impl<K: Ord, V, I: Iterator<Item = (K, V)>> Along<I> {
    pub(crate) fn new(sorted: impl IntoIterator<IntoIter = I>) -> Self {
        Self(sorted.into_iter().peekable())
    }

    /// No key may be lower than the one before.
    pub(crate) fn at(&mut self, key: &K) -> Option<V> {
        while self.0.next_if(|(next, _)| next < key).is_some() {}
        self.0.next_if(|(next, _)| next == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_passed_by() {
        let mut along = Along::new([(1, 'a'), (3, 'c'), (4, 'd'), (9, 'z')]);
        let found = [0, 1, 2, 4, 5, 9, 10].map(|key| along.at(&key));
        assert_eq!(found, [None, Some('a'), None, Some('d'), None, Some('z'), None]);
    }
}

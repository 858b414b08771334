//! What clients saw, and whether one copy that does one thing after another explains it.
//!
//! Every value is written to a register once at most, so it can be told in no time (Gibbons and Korach, "Testing Shared Memories",
//! 1997): the write of a value and the reads that saw it form a cluster, which must fit between those of other values.

use std::collections::BTreeMap;

/// Something a client did to one register, between two ticks of a clock that all share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deed {
    pub register: u64,
    pub is_write: bool,
    /// What was written or seen.
    pub value: u64,
    pub began: u64,
    /// `None` for a write that nobody answered: it took effect at any time since, or never will.
    pub ended: Option<u64>,
}

/// The value that every register has before anything is written.
pub(crate) const FIRST: u64 = 0;

/// All that has to do with one value.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    write_began: Option<u64>,
    earliest_end: u64,
    latest_begin: u64,
    was_read: bool,
    answered: bool,
}

/// Why no single copy explains it, for the first register that has no explanation.
pub(crate) fn unexplained(deeds: &[Deed]) -> Option<String> {
    let mut registers: BTreeMap<u64, Vec<&Deed>> = BTreeMap::new();
    for deed in deeds {
        registers.entry(deed.register).or_default().push(deed);
    }
    registers.iter().find_map(|(register, deeds)| {
        unexplained_of_one(deeds).map(|why| format!("register {register} is not linearizable: {why}"))
    })
}

fn unexplained_of_one(deeds: &[&Deed]) -> Option<String> {
    let unseen =
        Cluster { write_began: None, earliest_end: u64::MAX, latest_begin: 0, was_read: false, answered: false };
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    let first = Cluster { write_began: Some(0), earliest_end: 0, answered: true, ..unseen };
    clusters.insert(FIRST, first);
    for deed in deeds {
        let cluster = clusters.entry(deed.value).or_insert(unseen);
        let end = deed.ended.unwrap_or(u64::MAX);
        if deed.is_write {
            if cluster.write_began.is_some() {
                return Some(format!("{} is written twice, which this check cannot tell apart", deed.value));
            }
            cluster.write_began = Some(deed.began);
            cluster.answered |= deed.ended.is_some();
        } else {
            cluster.was_read = true;
        }
        cluster.earliest_end = cluster.earliest_end.min(end);
        cluster.latest_begin = cluster.latest_begin.max(deed.began);
    }
    // A write that nobody was told of and nobody saw need not have happened.
    clusters.retain(|_, cluster| cluster.answered || cluster.was_read);
    for (value, cluster) in &clusters {
        match cluster.write_began {
            None => return Some(format!("{value} is read and was never written")),
            Some(began) if cluster.earliest_end < began => {
                return Some(format!("{value} is read before it is written"));
            }
            Some(_) => {}
        }
    }
    // One whose operations do not all overlap must hold from its earliest end to its latest beginning, alone.
    let mut forward: Vec<(u64, u64, u64)> = clusters
        .iter()
        .filter(|(_, cluster)| cluster.earliest_end < cluster.latest_begin)
        .map(|(value, cluster)| (cluster.earliest_end, cluster.latest_begin, *value))
        .collect();
    forward.sort_unstable();
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Some(format!("{} and {} both hold at {}", pair[0].2, pair[1].2, pair[1].0));
    }
    // One whose operations all overlap fits anywhere in that overlap, unless another holds all through it.
    for (value, cluster) in clusters.iter().filter(|(_, cluster)| cluster.earliest_end >= cluster.latest_begin) {
        let (from, to) = (cluster.latest_begin, cluster.earliest_end);
        let around = forward.iter().find(|(start, end, _)| *start < from && to < *end);
        if let Some((.., other)) = around {
            return Some(format!("{value} happens while {other} holds, from {from} to {to}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

    use super::*;
    use crate::chance::Chance;

    fn write(value: u64, began: u64, ended: u64) -> Deed {
        Deed { register: 1, is_write: true, value, began, ended: Some(ended) }
    }

    fn read(value: u64, began: u64, ended: u64) -> Deed {
        Deed { is_write: false, ..write(value, began, ended) }
    }

    #[test]
    fn what_one_copy_would_do_is_explained_and_nothing_else_is() {
        let check = |deeds: &[Deed], expected: bool| assert_eq!(unexplained(deeds).is_none(), expected, "{deeds:?}");
        check(&[read(0, 1, 2), write(5, 3, 4), read(5, 5, 6)], true);
        check(&[write(5, 1, 4), read(0, 2, 3), read(5, 5, 6)], true);
        check(&[write(5, 1, 2), read(0, 3, 4)], false);
        check(&[write(5, 1, 2), write(6, 3, 4), read(5, 5, 6)], false);
        check(&[write(5, 1, 10), write(6, 2, 9), read(5, 11, 12), read(6, 13, 14)], false);
        check(&[read(7, 1, 2)], false);
        check(&[read(7, 1, 2), write(7, 3, 4)], false);
        let nobody_answered = Deed { ended: None, ..write(5, 1, 0) };
        check(&[nobody_answered, read(0, 5, 6), read(5, 7, 8)], true);
        check(&[nobody_answered, read(5, 5, 6), read(0, 7, 8)], false);
    }

    /// stateright's tester tries every order, so only short histories; it must say the same of all of them.
    #[test]
    fn another_checker_says_the_same() {
        let (mut chance, mut verdicts) = (Chance::new(7), [0; 2]);
        for _ in 0..3_000 {
            let mut moments: Vec<u64> = (1..=14).collect();
            let mut deeds = Vec::new();
            for client in 0..7_u64 {
                let mut take = || moments.remove(chance.below(moments.len() as u64) as usize);
                let (one, other) = (take(), take());
                let is_write = client < 3;
                let value = if is_write { client + 1 } else { chance.below(4) };
                let ended = (!is_write || !chance.one_in(4)).then(|| one.max(other));
                deeds.push(Deed { register: 0, is_write, value, began: one.min(other), ended });
            }
            let mut tester = LinearizabilityTester::new(Register(FIRST));
            let mut events = BTreeMap::new();
            for (client, deed) in deeds.iter().enumerate() {
                events.insert(deed.began, (client, true));
                deed.ended.map(|ended| events.insert(ended, (client, false)));
            }
            for (client, begins) in events.into_values() {
                let deed = deeds[client];
                let op = if deed.is_write { RegisterOp::Write(deed.value) } else { RegisterOp::Read };
                let ret = if deed.is_write { RegisterRet::WriteOk } else { RegisterRet::ReadOk(deed.value) };
                match begins {
                    true => tester.on_invoke(client, op).map(|_| ()).unwrap(),
                    false => tester.on_return(client, ret).map(|_| ()).unwrap(),
                }
            }
            let expected = tester.is_consistent();
            assert_eq!(unexplained(&deeds).is_none(), expected, "{deeds:?}: {:?}", unexplained(&deeds));
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 100), "{verdicts:?}");
    }
}

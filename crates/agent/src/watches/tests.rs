//! What a watcher is told, against what was written.

use super::*;
use futures_util::{FutureExt, StreamExt};

/// A command of the log: its index, and what it touched.
type Written = (u64, Vec<(String, bool)>);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}

fn some_log(random: &mut Random, commands: usize) -> Vec<Written> {
    let mut index = 0;
    let mut command = || {
        // A shared log has entries of its own in between.
        index += 1 + random.below(3);
        let keys = (0..random.below(4)).map(|_| {
            let kind = ["services/default/web", "stars/default/web/star_1", "nodes/node_1"][random.below(3) as usize];
            (kind.to_owned(), random.below(2) == 0)
        });
        (index, keys.collect())
    };
    (0..commands).map(|_| command()).collect()
}

fn query(prefix: &str, from: impl Into<Option<u64>>) -> WatchQuery {
    WatchQuery { prefix: prefix.to_owned(), from: from.into() }
}

/// An agent that does not leave.
fn staying() -> watch::Receiver<bool> {
    let (leave, leaving) = watch::channel(false);
    std::mem::forget(leave);
    leaving
}

const QUICK: Patience = Patience {
    slow_after: Duration::from_millis(300),
    bookmark_every: Duration::from_millis(2),
    behind_for: Duration::from_millis(100),
};

/// One whose bookmarks come soon, and which is patient for as long as a test needs.
fn quick(index: u64) -> Watches {
    Watches::with(index, QUICK)
}

fn push(watches: &Watches, (index, keys): &Written) {
    watches.push(*index, keys.iter().cloned());
    watches.reached(*index);
}

async fn next(stream: &mut WatchStream) -> Option<WatchLine> {
    timeout(Duration::from_secs(60), stream.next()).await.expect("a line or the end").map(|line| line.unwrap())
}

#[tokio::test]
async fn what_is_told_is_what_was_written_whatever_breaks_and_wherever_one_goes_on() {
    for seed in 1..=12 {
        let mut random = Random(seed);
        let log = some_log(&mut random, 60);
        let prefix = ["", "services/", "stars/default/w", "nodes/node_2"][random.below(4) as usize];
        // Two nodes, of which the one that leads hears of everything first, until the other does.
        let nodes = [quick(0), quick(0)];
        let mut heard = [0, 0];
        let mut told: Vec<(u64, Vec<String>, Vec<String>)> = Vec::new();
        let mut from = 0;
        let last = log.last().unwrap().0;
        let mut rounds = 0;
        while from < last {
            rounds += 1;
            let at = random.below(2) as usize;
            // One that is behind is waited for.
            while *nodes[at].index.borrow() < from {
                push(&nodes[at], &log[heard[at]]);
                heard[at] += 1;
            }
            let mut stream = nodes[at].watch(query(prefix, from), staying()).await.unwrap();
            for _ in 0..random.below(20) {
                // More happens while it is told.
                let node = random.below(2) as usize;
                for _ in 0..random.below(3) {
                    if let Some(written) = log.get(heard[node]) {
                        heard[node] += 1;
                        push(&nodes[node], written);
                    }
                }
                let line = next(&mut stream).await.unwrap();
                assert!(line.index >= from, "seed {seed}: {line:?} after {from}");
                assert_eq!(line.problem, None);
                from = line.index;
                if !line.is_bookmark() {
                    told.push((line.index, line.changed, line.removed));
                }
            }
        }
        let expected = log.iter().map(|(index, keys)| {
            let of = |there: bool| {
                let keys = keys.iter().filter(|(key, is)| *is == there && key.starts_with(prefix));
                keys.map(|(key, _)| key.clone()).collect::<Vec<String>>()
            };
            (*index, of(true), of(false))
        });
        let expected: Vec<_> = expected.filter(|(_, changed, removed)| changed.len() + removed.len() > 0).collect();
        assert_eq!(told, expected, "seed {seed}");
        assert!(rounds > 1, "seed {seed}: nothing was ever resumed");
    }
}

#[tokio::test]
async fn an_idle_watcher_is_told_how_far_it_is() {
    let watches = quick(7);
    let mut stream = watches.watch(query("apps/", None), staying()).await.unwrap();
    assert_eq!(next(&mut stream).await, Some(WatchLine::bookmark(7)));
    push(&watches, &(9, vec![("nodes/node_1".to_owned(), true)]));
    // One may have been on its way.
    while next(&mut stream).await != Some(WatchLine::bookmark(9)) {}
}

#[tokio::test]
async fn who_comes_too_late_is_told_from_where_to_watch() {
    let watches = Watches::new(5);
    let before = watches.watch(query("", 4), staying()).await.err().unwrap();
    assert_eq!((before.code, before.index), (Code::Compacted, Some(5)));
    let key = |n: u64| vec![(format!("nodes/{n}"), true)];
    for index in 6..6 + KEPT_MAX as u64 {
        push(&watches, &(index, key(index)));
    }
    assert!(watches.watch(query("", 5), staying()).await.is_ok(), "all of it is kept");
    push(&watches, &(90_000, key(1)));
    let late = watches.watch(query("", 5), staying()).await.err().unwrap();
    assert_eq!((late.code, late.index), (Code::Compacted, Some(6)));
    let mut stream = watches.watch(query("", 6), staying()).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().index, 7);
    assert_eq!(watches.kept().keys, KEPT_MAX);
}

/// As after a backup was restored: what was seen under that index never happened here.
#[tokio::test]
async fn an_index_that_is_ahead_of_the_log_is_waited_for_a_moment_and_then_refused() {
    let watches = quick(7);
    let key = || vec![("nodes/node_1".to_owned(), true)];
    let refused = watches.watch(query("", 999_999_999), staying()).await.err().unwrap();
    assert_eq!((refused.code, refused.index), (Code::Ahead, Some(7)));
    assert_eq!(refused.message, "index 999999999 is ahead of the log, which has come to 7 here");
    assert!(refused.help.is_some());
    assert_eq!(watches.room.available_permits(), WATCHERS_MAX, "it takes no place");
    // Where another node told it a moment ago, this one hears it in time.
    let patience = Patience { behind_for: Duration::from_secs(60), ..QUICK };
    let watches = Watches::with(7, patience);
    let mut early = Box::pin(watches.watch(query("", 9), staying()));
    assert!(early.as_mut().now_or_never().is_none(), "it waits");
    push(&watches, &(9, key()));
    let mut stream = early.await.unwrap();
    push(&watches, &(11, key()));
    loop {
        let line = next(&mut stream).await.unwrap();
        assert!(line.index >= 9);
        if !line.is_bookmark() {
            assert_eq!(line.index, 11);
            break;
        }
    }
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_with_the_index_to_resume_from() {
    // It is told nothing unasked.
    let patience = Patience { bookmark_every: Duration::from_secs(3600), ..QUICK };
    let watches = Watches::with(0, patience);
    let mut stream = watches.watch(query("", 0), staying()).await.unwrap();
    assert_eq!(next(&mut stream).await, Some(WatchLine::bookmark(0)));
    for index in 1..=200 {
        push(&watches, &(index, vec![("security".to_owned(), true)]));
    }
    // It takes nothing; that its task ends is how one knows.
    let ended = async {
        while watches.room.available_permits() < WATCHERS_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), ended).await.expect("it is cut off");
    let mut told = Vec::new();
    let cut_off = loop {
        let line = next(&mut stream).await.expect("a last line");
        match line.problem {
            None => told.push(line.index),
            Some(_) => break line,
        }
    };
    assert_eq!(told, (1..=QUEUE_MAX as u64).collect::<Vec<u64>>());
    assert_eq!(cut_off.index, QUEUE_MAX as u64);
    assert_eq!(next(&mut stream).await, None);
    let mut again = watches.watch(query("", cut_off.index), staying()).await.unwrap();
    assert_eq!(next(&mut again).await.unwrap().index, cut_off.index + 1);
    // The control: one that takes what it is told is told everything.
    for index in cut_off.index + 2..=200 {
        assert_eq!(next(&mut again).await.unwrap().index, index);
    }
}

#[tokio::test]
async fn watchers_are_bounded_and_gone_when_they_go() {
    let watches = Watches::new(0);
    let mut streams: Vec<WatchStream> = Vec::new();
    for _ in 0..WATCHERS_MAX {
        streams.push(watches.watch(query("", None), staying()).await.unwrap());
    }
    let refused = watches.watch(query("", None), staying()).await.err().unwrap();
    assert_eq!(refused.code, Code::Unavailable);
    streams.pop();
    // Its task ends in its own time.
    let again = timeout(Duration::from_secs(60), async {
        while watches.room.available_permits() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        watches.watch(query("", None), staying()).await
    });
    assert!(again.await.expect("room").is_ok());
}

#[tokio::test]
async fn a_watch_ends_with_the_agent() {
    let (leave, leaving) = watch::channel(false);
    let watches = Watches::new(3);
    let mut stream = watches.watch(query("", None), leaving).await.unwrap();
    assert_eq!(next(&mut stream).await, Some(WatchLine::bookmark(3)));
    leave.send_replace(true);
    assert_eq!(next(&mut stream).await, None);
}

#[test]
fn a_prefix_of_no_key_is_refused() {
    let refused = |prefix: &str, expected: bool| assert_eq!(check(prefix).is_err(), expected, "{prefix}");
    for prefix in ["", "a", "apps/", "services/shop/", "stars/default/web/star_1", "secur", "security"] {
        refused(prefix, false);
    }
    for prefix in ["x", "service/", "/apps", "apps\n", &format!("apps/{}", "a".repeat(PREFIX_MAX_BYTES))] {
        refused(prefix, true);
    }
}

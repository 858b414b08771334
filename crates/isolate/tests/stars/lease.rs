//! Stars that may run only for as long as somebody says so.

use std::time::{Duration, Instant};

use isolate::Request;
use model::{ExitCause, StarId};

use crate::kit::Kit;
use crate::{Test, Verdict};

pub(crate) const TESTS: &[Test] = &[
    ("a_star_whose_lease_is_not_renewed_is_ended_by_the_nursery_alone", over),
    ("the_next_nursery_ends_a_star_whose_lease_nobody_renews", next_nursery),
];

fn lease(kit: &Kit, star: StarId, for_ms: u64) {
    kit.send(&Request::Lease { stars: vec![star], for_ms }, &[]);
}

fn over(kit: &Kit) -> Verdict {
    let (leased, free) = (kit.script(&["idle"]), kit.script(&["idle"]));
    // Named before it begins, as an agent does.
    lease(kit, leased.star, 2_000);
    kit.start(&leased);
    kit.start(&free);
    let mut renewed = Instant::now();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        renewed = Instant::now();
        lease(kit, leased.star, 400);
    }
    // The agent stands still: nobody tells the nursery anything.
    assert_eq!(kit.end(leased.star), ExitCause::LeaseOver);
    let lasted = renewed.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_millis(1_400)).contains(&lasted), "{lasted:?}");
    // The control: without a lease it runs on.
    let runs =
        kit.look().into_iter().find(|report| report.star == free.star).is_some_and(|report| report.ended.is_none());
    assert!(runs);
    Verdict::Held
}

fn next_nursery(kit: &Kit) -> Verdict {
    let (left, kept, free) = (kit.script(&["idle"]), kit.script(&["idle"]), kit.script(&["idle"]));
    for order in [&left, &kept, &free] {
        kit.start(order);
    }
    lease(kit, left.star, 60_000);
    lease(kit, kept.star, 60_000);
    kit.look();
    kit.kill_nursery();
    kit.open();
    lease(kit, kept.star, 60_000);
    assert_eq!(kit.end(left.star), ExitCause::LeaseOver);
    let running = |star| kit.look().into_iter().any(|report| report.star == star && report.ended.is_none());
    assert!(running(kept.star) && running(free.star));
    Verdict::Held
}

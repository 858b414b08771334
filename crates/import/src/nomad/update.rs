//! `update` of a job or a group, as `update` of a service says it.

use model::{Amount, OnFailure, Update, UpdateStrategy};

use crate::draft::Service;
use crate::ledger::Ledger;
use crate::tree::Node;
use crate::units;

/// As `deploy` has it.
const HEALTHY_MAX_MS: u64 = 3_600_000;

/// What several blocks say, of which the last holds.
pub(super) fn read(ledger: &mut Ledger, service: &mut Service, blocks: &[&Node]) {
    let get = |key: &str| blocks.iter().rev().find_map(|block| block.get(key));
    let number = |key: &str| get(key).and_then(Node::int).and_then(|count| u32::try_from(count).ok());
    let ms = |key: &str| get(key).and_then(Node::scalar).and_then(units::go_ms);
    let update = &mut service.update;
    match number("max_parallel") {
        // Nothing is waited for.
        Some(0) => (update.max_surge, update.max_unavailable) = (Amount::Stars(0), Amount::Percent(100)),
        Some(count) => (update.max_surge, update.max_unavailable) = (Amount::Stars(count), Amount::Stars(0)),
        None => {}
    }
    let canary = number("canary").filter(|count| *count > 0);
    let promoted = get("auto_promote").is_some_and(Node::is_true);
    if let Some(stars) = canary {
        update.strategy = UpdateStrategy::Canary { stars: Amount::Stars(stars) };
        update.promote_after_ms = promoted.then_some(0);
    }
    let healthy = ms("min_healthy_time").filter(|ms| *ms <= HEALTHY_MAX_MS);
    update.healthy_ms = healthy.unwrap_or_default() as u32;
    let bounds = Update::DEADLINE_MIN_MS..=Update::DEADLINE_MAX_MS;
    let deadline = ms("progress_deadline").filter(|ms| bounds.contains(ms) && *ms > u64::from(update.healthy_ms));
    update.deadline_ms = deadline.unwrap_or(Update::DEADLINE_DEFAULT_MS.max(u64::from(update.healthy_ms) * 2));
    if get("auto_revert").is_some_and(|revert| revert.boolean() == Some(false)) {
        update.on_failure = OnFailure::Hold;
    }
    for (key, value) in blocks.iter().flat_map(|block| block.entries()) {
        match key.as_str() {
            "max_parallel" if value.int() == Some(0) => ledger.changed(value, "update: all stars at once"),
            "max_parallel" if number("max_parallel").is_some() => {
                ledger.changed(value, "update: `max_surge`: so many at a time, new ones before old ones end");
            }
            "canary" if value.int() == Some(0) => ledger.carried(value, "none is tried first"),
            "canary" if canary.is_some() => ledger.carried(value, "update: `canary`"),
            "auto_promote" if canary.is_none() => ledger.carried(value, "none is tried first"),
            "auto_promote" if promoted => ledger.carried(value, "update: `promote_after_seconds`"),
            "auto_promote" => {
                ledger.carried(value, "what is tried is believed when somebody says so: `rads c rollout promote`")
            }
            "min_healthy_time" if healthy.is_some() => ledger.carried(value, "update: `healthy_seconds`"),
            "progress_deadline" if deadline.is_some() => {
                ledger.changed(value, "update: `deadline_seconds`: of the whole change");
            }
            "auto_revert" if value.is_true() => ledger.carried(value, "a change that fails is taken back"),
            "auto_revert" => ledger.carried(value, "update: `on_failure`: \"hold\""),
            "healthy_deadline" => {
                ledger.left(value, "how long a star may take to get ready is `start_seconds` of its probe")
            }
            "health_check" if value.scalar() == Some("checks") => {
                ledger.carried(value, "a star counts when it is ready")
            }
            "health_check" => ledger.left(value, "a star counts when it is ready"),
            "stagger" => ledger.left(value, "the next star is replaced when the one before is healthy"),
            _ => ledger.left(value, "`update` has nothing like it"),
        }
    }
}

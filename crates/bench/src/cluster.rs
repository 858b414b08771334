//! What a constellation costs and how soon it does what is asked of it, beside etcd, serf and raw TLS (targets 6 to 9, 16 to 20).
//!
//! - `rnp`: two endpoints. `voters`: three to five real agents. `hollow`: a hundred agents whose stars are not real.
//! - `detection`: thirty agents beside thirty of serf. `simulated`: a thousand members in virtual time. `scale`: a
//!   million stars.
//! - `machines`, `etcd`, `serf`: those who are measured.

mod detection;
mod hollow;
mod machines;
mod rnp;
mod scale;
mod serf;
mod simulated;
mod voters;

pub(crate) use hollow::main as measure_hollow;
pub(crate) use hollow::nodes::main as run_hollow_nodes;

use crate::Bench;
use crate::report::Report;

type Part = fn(&Bench, &mut Report) -> Result<(), String>;

/// By the names that `--only` chooses them by.
const PARTS: [(&str, Part); 6] = [
    ("rnp", rnp::measure),
    ("voters", voters::measure),
    ("hollow", hollow::measure),
    ("detection", detection::measure),
    ("simulated", simulated::measure),
    ("scale", scale::measure),
];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for (name, measure) in PARTS {
        if bench.wants(name)
            && let Err(reason) = measure(bench, report)
        {
            report.failed(name, &reason);
        }
    }
}

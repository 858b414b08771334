//! A snapshot as it comes from another controller.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = consensus_sim::read_snapshot(input);
});

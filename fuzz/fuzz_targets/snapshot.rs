//! A snapshot as it comes from another controller.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(state) = consensus_sim::read_snapshot(input) {
        assert!(state.index <= u64::MAX);
    }
});

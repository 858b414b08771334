//! A voter's part of the log on a disk that was damaged, or that says what it likes with checksums that are right.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| store::fuzzing::journal(input));

//! A record of the log on disk, its checksum right or not.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| store::fuzzing::record(input));

//! What builders of the project run: check, test, tidy, golden, bench.

#![forbid(unsafe_code)]

fn main() {}

//! What is on disk: the command log, state snapshots and bundles.

#![forbid(unsafe_code)]

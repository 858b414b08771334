//! The loop of a node: feeds the pure node its events and performs its effects; decides nothing.

#![forbid(unsafe_code)]

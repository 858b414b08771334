//! The program: command line, agent, nursery and language tools in one binary.

#![forbid(unsafe_code)]

fn main() {}

//! Life of a service as a state machine: which stars to start, drain, stop and when to try again.

#![forbid(unsafe_code)]

//! Where stars go: a pure function from a view and a request to a plan with its reasons.

#![forbid(unsafe_code)]

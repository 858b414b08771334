//! What the log means: apply one command to the state, and say what changed.

#![forbid(unsafe_code)]

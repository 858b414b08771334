//! Every `unsafe` block of the project: thin wrappers of system calls that `rustix` lacks, safe to call from the
//! rest of this crate. One file per kind of call; none of them decides anything.
#![allow(unsafe_code)]

pub(crate) mod detach;

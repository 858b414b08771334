//! The library of RADS.
#![forbid(unsafe_code)]
mod server;
mod template;
mod web;

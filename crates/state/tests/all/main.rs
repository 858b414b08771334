//! The tests of commands, in one program: each program would be linked with all of it once more.

mod access;
mod commands;
mod jobs;
mod keys;
mod namespaces;
mod nodes;
mod rollouts;
mod security;
mod stars_access;

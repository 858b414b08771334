//! The tests of a whole node, in one program: each program would be compiled with all of it once more.

mod answers;
mod desk;
mod forecast;
mod holds;
mod many;
mod namespaces;
mod once;
mod placement;
mod pressure;
mod promises;
mod world;

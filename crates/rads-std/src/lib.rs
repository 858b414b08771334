//! The RADS library and the loop that performs what the machine asks: files, HTTP, SQLite, time.
//!
//! [`load`] compiles a program ([`load_typed`] one that somebody typed), [`run`] runs it on the calling thread and gives the exit code, [`natives`] is the
//! registry that both the compiler and the machine need, [`rehearse`] warms a process for what will follow. The machine itself is `rads-vm`; nothing here interprets.
//!
//! - `event_loop`, `machine`: when the program runs, waits and ends; `handler`: requests in, replies out.
//! - `app_folder`: files that services are made of.
//! - `library`, `modules`: what scripts can call. `server`, `database`, `template`, `web`: the same without a script.

#![forbid(unsafe_code)]

pub mod app_folder;
mod database;
mod event_loop;
mod handler;
mod library;
mod loading;
mod machine;
mod modules;
mod rehearsal;
mod server;
mod template;
mod web;

pub use app_folder::AppFolder;
pub use event_loop::{Output, RunOptions, run};
pub use library::natives;
pub use loading::{Loaded, load, load_typed};
pub use modules::constellation::Way;
pub use rehearsal::rehearse;

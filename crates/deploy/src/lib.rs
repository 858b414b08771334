//! What a user wrote to what is asked of a constellation: `app.rads` → [`model::AppSpec`], with no effects at all.
//!
//! - [`evaluate`] runs `app.rads` on a machine whose host only records; the same file gives the same spec.
//! - `options` reads the options of a service, from a script or from a command line, and checks them.
//! - `bundle` says which files a service needs and names them by content.
//! - [`namespace_change`] reads what a program says of a namespace.
//! - [`diff`] says, for people, what applying a spec would change.
//!
//! Files come through [`Files`], so that the caller decides where they are; who applies the spec is the caller's too.

#![forbid(unsafe_code)]

mod bundle;
mod diff;
mod evaluate;
mod fault;
mod names;
mod namespace;
mod options;
mod place;
mod setting;

pub use bundle::{Bundle, Entry, EntryKind, Files};
pub use diff::{Change, Diff, Replacement, ServiceChange, Stars, diff, placement_fields, service_diff, update_fields};
pub use evaluate::{Evaluated, Source, evaluate, evaluate_with, service_of_program, single_service};
pub use fault::Fault;
pub use names::OPTIONS;
pub use namespace::{QUOTA_OPTIONS, namespace_change, quota_change};
pub use setting::Setting;

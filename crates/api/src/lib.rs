//! The HTTP API of an agent: routes, types, OpenAPI document, and its client.
//!
//! One set of types serves both ends. What an agent *does* is behind [`Control`], so this crate knows no loop, store
//! or star. It is spoken over a Unix socket in the data folder that only its owner (and root) may use, between the agents of a
//! constellation, and over HTTPS by those who have a grant. Who may ask for what is in `access`.

#![forbid(unsafe_code)]

mod access;
mod asking;
pub mod certs;
mod check;
pub mod client;
pub mod constellation;
pub mod control;
mod elsewhere;
pub mod exec;
pub mod grants;
pub mod keyed;
mod refusal;
mod routes;
pub mod serve;
pub mod types;
pub mod watch;

pub use certs::{AuthorityView, CertificateView, CertificatesView, Invite, TokenView};
pub use client::{ByteReader, Client, LineReader, LogReader};
pub use constellation::{
    Became, Health, Init, Introduction, Invitation, Join, MachineView, Neighbour, NodeView, OwnPlace, Removal, SetDuty,
    Survey,
};
pub use control::{Answer, ByteStream, Caller, Control, Duplex, Exec, LogStream, Place, Road, Talk};
pub use grants::{AuditView, AuthorView, GrantView, Granted, NewGrant, OutcomeView, RecordView, WhoView};
pub use routes::{openapi, router};
pub use serve::{Admit, Bounds, Routes, Socket, socket_path};
pub use types::*;
pub use watch::{WatchLine, WatchQuery, WatchStream};

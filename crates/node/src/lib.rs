//! All that one node decides, as one value: events in, effects out.
//!
//! [`Node::handle`] is told what happened and when, and answers with what to do. It owns the state of the log: a command
//! it proposes comes back as [`Event::Committed`] once it is durable, and only then holds. Nothing here waits, reads a
//! clock or performs anything, so a test or a simulator runs exactly what ships.
//!
//! - `event`: what comes in and goes out.
//! - `node`: the value itself; which event goes where.
//! - `change`: requests for changes, from the first look to the answer; entry points are opened before a change is
//!   proposed, so that a taken port changes nothing.
//! - `stars`: the life of each star on this node: order, drain, stop, end. `probes`: what is asked of it meanwhile.
//! - `limits`, `pause`: what stars may use, and whether they stand still, changed while they run; `balloon`: a soft limit of
//!   memory that follows what they use. `pressure`: who gives way when the machine has too little memory left.
//! - `services`: what `rollout` decides for each service, and what the proxy is told. `ground`: whether its stars may stay where they are.
//! - `rollouts`: at which pace stars are replaced, when a roll-out is over, and how.
//! - `jobs`: which run of a job is due, and what its parts are told.
//! - `peers`: the other machines, and who of them gets stars or is given up. `roster`: how they are shown. `voters`: which of
//!   them keep the log. `rights`: what each may have written.
//! - `namespaces`: their ends. `resources`: the machines as one pool.
//! - `log`: proposals under way, transitions gathered into batches.
//! - `timers`: what falls due when. `view`: what people and programs are shown.

#![forbid(unsafe_code)]

mod along;
mod balance;
mod balloon;
mod change;
mod event;
mod explain;
mod forecast;
mod ground;
mod holds;
mod jobs;
mod limits;
mod log;
mod namespaces;
mod node;
mod nowhere;
mod pause;
mod peers;
mod pressure;
mod probes;
mod resources;
pub mod rights;
mod rollouts;
mod room;
pub mod roster;
mod services;
mod stars;
mod timers;
pub mod view;
pub mod voters;

pub use balance::MoveView;
pub use event::{Effect, Event, Reply, Request, RunningStar, StartOrder};
pub use explain::{ExplainView, ExplainedNode};
pub use forecast::{Comes, Forecast, GivesWay, ServiceForecast};
pub use jobs::{JobView, RunsView};
pub use namespaces::NamespaceView;
pub use node::{Node, NodeConfig};
pub use peers::{LEASE, SINGLETON_LEASE};
pub use resources::{Amounts, NodeResources, Pool, ResourcesView};
pub use rollout::Answers;

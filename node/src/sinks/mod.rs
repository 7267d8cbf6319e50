//! Handing entries on to other systems: syslog, files, webhooks. Every destination has a task and a place of its own, reads rows that
//! are committed, and waits for nothing that a writer waits for.
//!
//! **At least once.** A destination's place moves when what was sent is known to have arrived, and is on disk before anything behind
//! it counts as handed on. Whatever breaks, rows behind the place are sent again, with the same ids.
//!
//! Pausing, resuming, and every change of what is configured are entries.

mod batch;
mod config;
mod file;
mod forwarding;
mod outlet;
mod place;
mod queue;
mod sink;
mod stream;
mod webhook;
mod worker;

pub(crate) use config::TypedForward;
pub use config::{ForwardConfig, Target};
pub(crate) use forwarding::Forwarding;
pub use place::PlaceError;

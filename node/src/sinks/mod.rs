//! Forwards entries to other systems: syslog, files, webhooks. Every destination has its own task and offset. The task reads
//! only committed rows and never makes the writer wait.
//!
//! **At least once.** An offset advances only when the rows before it are known to have arrived, and the new offset is on disk
//! before any later row counts as forwarded. After any failure, the rows after the offset are sent again, with the same ids.
//!
//! Pausing, resuming, and every change of the configuration are recorded as entries.

mod batch;
mod config;
mod destination;
mod file;
mod forwarding;
mod offset;
mod queue;
mod sink;
mod stream;
mod webhook;
mod worker;

pub(crate) use config::RawForward;
pub use config::{ForwardConfig, Target};
pub(crate) use forwarding::Forwarding;
pub use offset::OffsetError;

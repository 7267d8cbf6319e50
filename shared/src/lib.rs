//! Everything that both sides of Piperoll must agree on.
//!
//! `log` is the pure model (no runtime, no files, no clock, no SQLite), `api` holds the wire types of both
//! HTTP interfaces, `net` holds the plumbing of both daemons. Inside this crate `net → api → log`.

#[cfg(feature = "api")]
pub mod api;
pub mod log;
#[cfg(feature = "net")]
pub mod net;

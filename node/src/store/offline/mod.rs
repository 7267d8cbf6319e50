//! A log without its daemon.

pub(super) mod log;

//! Offline access to a log, without its daemon.

pub(super) mod log;

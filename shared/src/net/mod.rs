//! Networking of both daemons: time, certificate identity, TLS, the accept loop, logging.

pub mod address;
pub mod clock;
pub mod digested;
pub mod files;
mod guard;
pub mod identity;
pub mod metrics;
pub mod receiver;
pub mod replaced;
pub mod serve;
pub mod share;
pub mod telemetry;
pub mod tls;

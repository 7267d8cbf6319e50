//! The recorder on every machine: one append-only log, a local socket for applications and operators, and
//! a peer interface for aggregators.

pub mod config;
mod http;
mod kept;
mod metrics;
mod node;
mod retention;
pub mod sinks;
pub mod sources;
mod start_at;
mod start_error;
pub mod store;
pub mod tokens;

pub use kept::KeptLog;
pub use node::Node;
pub use start_error::StartError;

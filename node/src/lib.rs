//! The recorder on every machine: one append-only log, a local socket for applications and operators, and
//! a peer interface for aggregators.

mod api;
pub mod config;
pub mod forward;
pub mod intake;
mod kept;
mod metrics;
mod node;
mod retention;
mod start_at;
mod start_error;
pub mod store;
pub mod tokens;

pub use kept::KeptLog;
pub use node::Node;
pub use start_error::StartError;

//! What an application links to record entries: the minimal emitter over the node's local socket.
//!
//! The socket's HTTP contract is in `docs/operations.md`; this crate adds nothing to it but types.

mod error;
mod socket;

pub use error::ClientError;
pub use socket::{LineStream, SocketClient};

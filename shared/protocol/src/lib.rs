//! Wire types of both HTTP interfaces, the node's and the aggregator's, and the frames of a peer scan.

pub mod access;
pub mod aggregator;
pub mod archive;
mod archived_row;
pub mod forward;
pub mod frame;
pub mod node;
pub mod problem;
pub mod verdict;
mod verify;

pub use archived_row::{ArchivedRowRef, ArchivedRowRefError};

//! Wire types of both HTTP interfaces, the node's and the aggregator's, and the frames of a peer scan.

pub mod access;
pub mod aggregator;
pub mod archive;
pub mod forward;
pub mod frame;
pub mod node;
pub mod problem;
pub mod verdict;
mod verify;

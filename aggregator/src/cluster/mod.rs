//! Nodes of the cluster: roster entries, connections, and the witness's memory of each node.

pub(crate) mod archive;
pub(crate) mod connection;
pub(crate) mod node_handle;
pub(crate) mod roster;
pub(crate) mod witness;

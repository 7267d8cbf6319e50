//! The nodes of the cluster: who they are, how they are reached, and what a witness remembers of each.

pub(crate) mod connection;
pub(crate) mod node_handle;
pub(crate) mod roster;
pub(crate) mod witness;

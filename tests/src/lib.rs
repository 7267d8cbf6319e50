//! The harness: a real cluster of processes, and a proxy that breaks the network between them.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a harness that cannot go on says so by panicking")]

mod cluster;
mod proxy;

pub use cluster::{Answer, Cluster, Guard, Member, Run, edit, entry, free_address, piperoll, place};
pub use proxy::{BlackHole, Fault, FaultProxy};

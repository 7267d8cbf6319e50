//! The test harness: a cluster of real processes, and a proxy that injects network faults between them.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a harness that cannot continue panics")]

mod answer;
mod ask;
mod bench;
mod cluster;
mod interference;
mod proxy;
mod rng;
mod shim;
mod tail;
mod tree;
mod until;

pub use answer::{Answer, Run, copy_log, edit, findings, place};
pub use bench::{append_in_flight, caller_entry, median, new_entry, new_store};
pub use cluster::{Cluster, Guard, Member, entry, free_address, piperoll};
pub use interference::Interference;
pub use proxy::{BlackHole, Fault, FaultProxy};
pub use rng::Rng;
pub use shim::ClockShim;
pub use tail::{Event, Tail};
pub use tree::Leaves;
pub use until::until;

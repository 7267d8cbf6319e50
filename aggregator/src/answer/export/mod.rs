//! Creates evidence bundles (docs/format.md, "Evidence bundle").
//!
//! Nodes are read at once, each to its end, up to a checkpoint that this aggregator has cosigned; only then is anything
//! put together, so that a bundle never says more than what every node gave.

mod assemble;
mod collect;
mod exporter;
mod signer;
mod spool;

pub(crate) use exporter::{Incomplete, Order, Outcome, RETRY_PAUSE};
pub(crate) use signer::Exporter;

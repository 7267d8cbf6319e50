//! Creates evidence bundles (docs/format.md, "Evidence bundle").
//!
//! Nodes are read concurrently, each to its end, up to a checkpoint that this aggregator has cosigned. The bundle is
//! assembled only afterwards, so it never claims more than what every node gave.

mod assemble;
mod collect;
mod exporter;
mod signer;
mod spool;

pub(crate) use exporter::{ExportJob, Incomplete, Outcome, RETRY_PAUSE};
pub(crate) use signer::Exporter;

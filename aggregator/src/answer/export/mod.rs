//! Creates evidence bundles (docs/format.md, "Evidence bundle").
//!
//! Nodes are read concurrently, each up to a checkpoint that this aggregator has cosigned. The bundle is assembled only
//! after all nodes have been read, so it never claims more than they delivered.

mod archived;
mod assemble;
mod collect;
mod exporter;
mod gathered;
mod signer;
mod spool;

pub(crate) use exporter::{ExportJob, Incomplete, Outcome, RETRY_PAUSE};
pub(crate) use signer::Exporter;

//! Runs one query at one node: plans the request, and reads, verifies and proves the rows.

pub(crate) mod archive_plan;
pub(crate) mod archive_reader;
pub(crate) mod log_reader;
pub(crate) mod node_reader;
pub(crate) mod plan;
mod position_range;
pub(crate) mod proof_verifier;
pub(crate) mod query;
pub(crate) mod verified_row;

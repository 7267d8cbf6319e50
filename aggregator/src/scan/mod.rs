//! One query at one node: what it is asked, and how its rows are read, verified and proven.

pub(crate) mod node_reader;
pub(crate) mod plan;
pub(crate) mod proof_verifier;
pub(crate) mod query;
pub(crate) mod verified_row;

//! The full check of a log.

pub(super) mod check;
pub(super) mod ids;
pub(super) mod statements;
pub(super) mod tree;

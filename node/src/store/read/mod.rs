//! Reads of many rows: scans in time order, ranges by number, and proofs.

pub(super) mod era_cursor;
pub(super) mod past_log;
pub(super) mod prove;
pub(super) mod range;
pub(super) mod scan;

//! Life cycle of entries and logs: retention, holds, erasure, and new generations.

pub(super) mod erase;
pub(super) mod hold_changes;
pub(super) mod past_logs;
pub(super) mod past_retention;
pub(super) mod prune;
pub(super) mod prune_request;
pub(super) mod rollover;

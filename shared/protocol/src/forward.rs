//! Status of a node's destinations, and pausing them.

use serde::{Deserialize, Serialize};

/// One place that entries are handed on to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForwardStatus {
    pub name: String,
    /// Without anything secret.
    pub to: String,
    /// `native`, `ocsf`, `ecs` or `cef`.
    pub format: String,
    /// Every row below has arrived there.
    pub next_seq: u64,
    /// Rows that have not.
    pub lag_rows: u64,
    /// How far behind the newest row is that arrived since the node started; 0 while nothing waits.
    pub lag_seconds: f64,
    /// Since the node started; rows that were sent again count again.
    pub rows_sent: u64,
    /// Rows of which something was left out, because the receiver takes no more; they say so.
    pub rows_reduced: u64,
    pub errors: u64,
    /// Why the last try failed.
    pub problem: Option<String>,
    pub problem_since: Option<String>,
    /// When something arrived last, RFC 3339.
    pub arrived_at: Option<String>,
    /// Since when, by whom and why it is held back.
    pub paused: Option<String>,
}

/// Holds a destination back until it is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardPauseRequest {
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardResumeRequest {
    pub name: String,
}

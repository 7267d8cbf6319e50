//! Status of a node's destinations, and requests to pause and resume them.

use serde::{Deserialize, Serialize};

/// Status of one destination that entries are forwarded to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForwardStatus {
    pub name: String,
    /// Address of the destination, without secrets.
    pub to: String,
    /// `native`, `ocsf`, `ecs` or `cef`.
    pub format: String,
    /// Every row below this seq has arrived at the destination.
    pub next_seq: u64,
    /// Rows that have not arrived yet.
    pub lag_rows: u64,
    /// Age of the oldest row that has not arrived, once the node has read that row; 0 if no row is waiting.
    pub lag_seconds: f64,
    /// Rows sent since the node started; a row that is sent again is counted again.
    pub rows_sent: u64,
    /// Rows that were shortened because of the destination's size limit; each of them is marked as shortened.
    pub rows_reduced: u64,
    pub errors: u64,
    /// Reason why the last attempt failed.
    pub problem: Option<String>,
    pub problem_since: Option<String>,
    /// Time at which a row last arrived, RFC 3339.
    pub arrived_at: Option<String>,
    /// Text that states since when, by whom and why the destination is paused; absent if it is not paused.
    pub paused: Option<String>,
}

/// Pauses a destination until it is resumed.
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

//! Answers of the aggregator: the completeness envelope and the list of nodes.

use serde::{Deserialize, Serialize};

use crate::node::{ForwardStatus, RetentionStatus};
use piperoll_query::stats::Stats;

/// How one node answered one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Answered in full; zero rows are an answer.
    Ok,
    /// TCP, TLS or identity refused.
    Unreachable,
    /// The connection was accepted but nothing came.
    Timeout,
    /// Died or stalled after some rows.
    Incomplete,
    /// Answered with an error, or busy.
    Error,
    /// A signature, a gap, or another node's rows.
    Invalid,
    /// The range reaches below the oldest row kept.
    Pruned,
    /// It answered, and rows of the range were in a log that another one took the place of: a generation before this one, or a log
    /// that was put back from an older copy.
    Superseded,
    /// It left the cluster, and its rows of the range cannot be read.
    Retired,
    /// Left out by the caller, or not a member yet in the range.
    Excluded,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Incomplete => "incomplete",
            Self::Error => "error",
            Self::Invalid => "invalid",
            Self::Pruned => "pruned",
            Self::Superseded => "superseded",
            Self::Retired => "retired",
            Self::Excluded => "excluded",
        }
    }
}

/// One node's part in an answer; the same list stands in success, partial and error answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeReport {
    pub node_id: String,
    pub generation: Option<String>,
    pub status: Status,
    /// Range proofs show that no row of this unfiltered range is missing, up to the checkpoint that this aggregator has
    /// cosigned last (`witnessed`); newer rows are authenticated only, and say so.
    /// Missing where no rows were asked for (`GET /nodes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<bool>,
    /// Its status is `pruned`, and the rows that went had stayed for as long as the cluster's policy says, by what witnesses saw of them:
    /// from here on nothing of it is missing, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<String>,
    /// Why not, in words.
    #[serde(default)]
    pub unproven: Option<String>,
    /// Rows of this node in the answer that are proven to stand under the cosigned checkpoint.
    #[serde(default)]
    pub rows_witnessed: u64,
    /// What is concluded about the node's log as a whole: `ok`, `unreachable`, `stale`, `rollback`, `fork`,
    /// `row_invalid`, `unknown_key`, `unverifiable`, `pruned`, `pruned_unshown`, `pruned_early`,
    /// `first_seen_again`, `superseded` or `retired`.
    pub verdict: String,
    /// Rows under the checkpoint that this aggregator has cosigned last; nothing under it can change unnoticed.
    #[serde(default)]
    pub witnessed: Option<u64>,
    /// When that checkpoint was last seen to hold, RFC 3339.
    #[serde(default)]
    pub witnessed_at: Option<String>,
    /// Rows that came since.
    #[serde(default)]
    pub unwitnessed: Option<u64>,
    /// In words, whenever status or verdict is not `ok`.
    pub reason: Option<String>,
    /// Rows of this node in the answer.
    pub rows: u64,
    /// Erased rows of the range that are not among them; see the envelope's field of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
    pub verified: u64,
    pub invalid: u64,
    pub took_ms: Option<f64>,
    pub head_seq: Option<u64>,
    pub oldest_seq: Option<u64>,
    /// When the node last answered anything, RFC 3339.
    pub last_seen: Option<String>,
    pub clock_offset_ms: Option<f64>,
    pub clock_uncertainty_ms: Option<f64>,
}

impl NodeReport {
    /// Nothing can be missing of it: proven, or not asked.
    pub fn is_proven(&self) -> bool {
        self.proven == Some(true) || self.status == Status::Excluded
    }
}

/// The header of a bundle that is complete since a time only: the same as [`Envelope::complete_since`].
pub const COMPLETE_SINCE_HEADER: &str = "audit-complete-since";

/// The completeness statement, the same in a page, in the last record of a stream and in an error body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope {
    /// Every expected, not excluded node is `ok`; nothing else influences it.
    pub complete: bool,
    /// Not complete only because rows of the range were pruned that had outlived the cluster's policy: from here on nothing is missing, and
    /// `from` set to it would make the answer complete. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<String>,
    /// Complete, and every node's part is proven whole.
    #[serde(default)]
    pub proven: bool,
    /// What is proven beyond the rows' signatures, in words.
    #[serde(default)]
    pub completeness: String,
    /// In the order asked for, nothing up to this time is missing, or, newest first, back to this time; null when a node gave nothing.
    pub complete_through: Option<String>,
    /// There are more rows behind the last one of this answer: it is one page of a longer answer. `next_cursor` continues it.
    #[serde(default)]
    pub more: bool,
    /// `desc` for newest first, or `asc`.
    #[serde(default)]
    pub order: String,
    /// How far the order of rows of different nodes can be off; null when a clock is unknown.
    pub order_uncertainty_ms: Option<f64>,
    pub expected: usize,
    pub answered: usize,
    pub nodes: Vec<NodeReport>,
    pub next_cursor: Option<String>,
    /// Leads to the page in front of this one, within what there was when the first page was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
    pub count: u64,
    /// The absolute half-open range that was asked for. An open end is the moment of asking; rows of nodes whose clocks run ahead of
    /// it are in the answer all the same.
    pub from: String,
    pub to: String,
    /// Texts of the filter that are too short for the index: every row of the range was read for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unindexed_texts: Vec<String>,
    /// Nodes were still searching when the page's time was up: in the order asked for everything up to here was looked at, and
    /// `next_cursor` continues there. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_to: Option<String>,
    /// Erased rows of the range that are not shown, because only what they said could decide whether the filter selects them;
    /// `is:erased` shows them. By the nodes' word, and missing where a scope limits what is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
    /// What was read in the filter in a way that may not have been meant, and what could be tried when nothing matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_hints: Vec<String>,
    /// The filter that the caller is limited to, besides their own; nothing outside it is in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_to: Option<String>,
}

impl Envelope {
    /// Nothing is missing that the cluster's policy had not let go; what exit code 0 stands for.
    pub fn is_whole(&self) -> bool {
        self.complete || self.complete_since.is_some()
    }
}

/// Header of a request for rows that says what they are for; what is recorded about the request follows it.
pub const PURPOSE_HEADER: &str = "piperoll-purpose";
/// They are counted and compared, and do not leave as they are: `audit.report` instead of `audit.export`.
pub const PURPOSE_REPORT: &str = "report";

/// The last line of an NDJSON answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FinalRecord {
    #[serde(rename = "final")]
    pub envelope: Envelope,
}

/// `GET /api/v1/stats`: what was counted, and the statement that says over which nodes. While it is not complete, every
/// number is a lower bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatsAnswer {
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Whether every row was read and verified by the aggregator. If not, the nodes counted, from their indexes.
    pub verified: bool,
    pub stats: Stats,
}

/// `GET /api/v1/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodesAnswer {
    pub complete: bool,
    pub expected: usize,
    pub answered: usize,
    pub nodes: Vec<NodeInfo>,
}

/// One row of the node list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeInfo {
    #[serde(flatten)]
    pub report: NodeReport,
    pub address: String,
    /// `active` or `retired`.
    pub roster_status: String,
    /// Set while the verdict is `fork` or `rollback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<AlarmInfo>,
    pub version: Option<String>,
    pub last_timestamp: Option<String>,
    pub write_fault: Option<String>,
    pub database_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    pub certificate_not_after: Option<String>,
    /// How long it keeps rows, and what stops it from dropping any; null while it does not answer.
    #[serde(default)]
    pub retention: Option<RetentionStatus>,
    /// Where it hands entries on to, and how far that is.
    #[serde(default)]
    pub forward: Vec<ForwardStatus>,
}

/// `POST /api/v1/nodes/{id}/accept`: an operator has looked at a fork or a rollback, and means the log that the node
/// presents now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// The generation that the node presents.
    pub generation: String,
    /// What happened, for the record.
    pub reason: String,
    /// Rows and root (base64) that the operator was shown (`alarm.presented` in `GET /nodes`): accepted is that log, or one that goes
    /// on from it. Without them it is the log that the node presents at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// A fork or a rollback that nobody has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlarmInfo {
    /// RFC 3339.
    pub since: String,
    /// The log that the node presented last; null while it signs none.
    pub presented: Option<PresentedLog>,
}

/// A log as its checkpoint names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PresentedLog {
    pub generation: String,
    /// Rows.
    pub size: u64,
    /// Base64.
    pub root: String,
}

/// Longest that an export waits for missing nodes.
pub const EXPORT_WAIT_SECONDS_MAX: u64 = 600;

/// `POST /api/v1/exports`: an evidence bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Why the export is made; it is recorded, and stands in the bundle.
    pub reason: String,
    #[serde(default)]
    pub format: ExportFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// RFC 3339, a date, or an age; the last 7 days by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default)]
    pub incomplete: IncompleteArg,
    /// With `wait`: how long, at most 600 seconds; 60 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
}

/// What is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// Evidence: an archive with proofs that anybody can check offline. Rows that no witness has seen yet are not in it.
    #[default]
    Bundle,
    /// A view for spreadsheets.
    Csv,
    /// A view for programs; ends with a final record.
    Ndjson,
}

/// What to do when expected nodes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum IncompleteArg {
    /// Answer 503 with the list of nodes.
    #[default]
    Refuse,
    /// Try again for a while, then refuse.
    Wait,
    /// Make the bundle of what there is, and mark it PARTIAL.
    Partial,
}

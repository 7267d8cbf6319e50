//! Answers of the aggregator: the completeness envelope and the list of nodes.

use crate::verdict::Verdict;
use serde::{Deserialize, Serialize};

use crate::archive::ArchiveVerdict;
use crate::node::{ForwardStatus, RetentionStatus};
use piperoll_query::stats::Stats;

/// Outcome of one node for one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Answered in full, possibly with zero rows.
    Ok,
    /// The node did not answer, but all of its witnessed rows of the range are in the archive and were read from there. Counts as
    /// answered, as of the time in `archived.as_of`.
    Archived,
    /// The TCP connection, the TLS handshake or the check of the node's identity failed.
    Unreachable,
    /// The connection was accepted, but no answer arrived in time.
    Timeout,
    /// The connection broke or stalled after some rows.
    Incomplete,
    /// The node answered with an error, or was busy.
    Error,
    /// Rows in the answer failed verification or were missing, or the node reported that its own database cannot be trusted.
    Invalid,
    /// The range begins before the oldest retained row.
    Pruned,
    /// The node answered, but rows of the range were in a log that has since been replaced: either an earlier generation, or a
    /// log that was restored from an older copy.
    Superseded,
    /// The node left the cluster, and its rows of the range cannot be read.
    Retired,
    /// The node was excluded by the caller, or was not yet a member during the range.
    Excluded,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Archived => "archived",
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

/// One node's contribution to an answer; success, partial and error answers contain the same list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeReport {
    pub node_id: String,
    pub generation: Option<String>,
    pub status: Status,
    /// Whether range proofs show that no row of this unfiltered range is missing, up to the checkpoint that this aggregator
    /// cosigned last (`witnessed`). Newer rows are only authenticated and are marked as such.
    /// Absent if no rows were requested (`GET /nodes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<bool>,
    /// Set if the status is `pruned` and the witnesses saw the pruned rows for at least as long as the cluster's policy requires: no row
    /// of the node is missing from this time on, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<String>,
    /// Reason why the range is not proven, as a message.
    #[serde(default)]
    pub unproven: Option<String>,
    /// Rows of this node in the answer that are proven to be covered by the cosigned checkpoint.
    #[serde(default)]
    pub rows_witnessed: u64,
    /// Verdict on the node's log as a whole.
    pub verdict: Verdict,
    /// Rows covered by the checkpoint that this aggregator cosigned last. Any change to these rows would be detected.
    #[serde(default)]
    pub witnessed: Option<u64>,
    /// Time at which that checkpoint was last confirmed, RFC 3339.
    #[serde(default)]
    pub witnessed_at: Option<String>,
    /// Rows added since that checkpoint.
    #[serde(default)]
    pub unwitnessed: Option<u64>,
    /// Explanation, present whenever status or verdict is not `ok`.
    pub reason: Option<String>,
    /// Rows of this node in the answer.
    pub rows: u64,
    /// Erased rows of the range that are not counted in `rows`; see `erased` of the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
    /// The part of the node's contribution that was read from the archive; absent if nothing had to be read from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivedReport>,
    pub verified: u64,
    pub invalid: u64,
    pub took_ms: Option<f64>,
    pub head_seq: Option<u64>,
    pub oldest_seq: Option<u64>,
    /// Time of the node's last answer to any request, RFC 3339.
    pub last_seen: Option<String>,
    pub clock_offset_ms: Option<f64>,
    pub clock_uncertainty_ms: Option<f64>,
}

/// The part of a node's contribution that was read from an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArchivedReport {
    /// `archive:` and the id of the archive.
    pub archive: String,
    /// Rows in the answer that were read from the archive. The other rows of the node came from the node.
    pub rows: u64,
    /// Time of the node's last archived row, RFC 3339.
    pub archived_through: Option<String>,
    /// Set if the status is `archived`: the time as of which the rows are all rows of the range, RFC 3339.
    pub as_of: Option<String>,
}

/// An archive that the answer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArchiveReport {
    /// `archive:` and the id of the archive.
    pub archive: String,
    pub status: Status,
    pub verdict: ArchiveVerdict,
    /// Number of the newest step that was known.
    pub step: u64,
    /// Explanation, present if the status is not `ok`.
    pub reason: Option<String>,
    /// Rows in the answer that were read from the archive.
    pub rows: u64,
}

impl NodeReport {
    /// Whether no row of the node can be missing: its range is proven, or the node was excluded.
    pub fn is_proven(&self) -> bool {
        self.proven == Some(true) || self.status == Status::Excluded
    }
}

/// Header of a bundle that is complete only from a certain time on; same value as [`Envelope::complete_since`].
pub const COMPLETE_SINCE_HEADER: &str = "audit-complete-since";

/// The completeness statement, the same in a page, in the last record of a stream and in an error body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope {
    /// Whether every expected node that is not excluded has the status `ok` or `archived`. Nothing else affects this field. If
    /// `as_of` is set, the answer is complete as of that time.
    pub complete: bool,
    /// Set if an archive was read instead of nodes that did not answer: nothing is known about what they recorded after this time. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// The archives that the answer needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<ArchiveReport>,
    /// Set if the answer is incomplete only because rows of the range were pruned after the retention period of the cluster's
    /// policy. Nothing is missing from this time on, and a query with this time as `from` would be complete. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_since: Option<String>,
    /// Whether the answer is complete and every node's contribution is proven complete.
    #[serde(default)]
    pub proven: bool,
    /// Message that says what is proven beyond the rows' signatures.
    #[serde(default)]
    pub completeness: String,
    /// Time up to which nothing is missing in the requested order; if the newest rows come first, the time back to which nothing
    /// is missing. Null if a node returned nothing.
    pub complete_through: Option<String>,
    /// Whether more rows follow the last one of this answer. If so, the answer is one page of a longer result, and `next_cursor`
    /// continues it.
    #[serde(default)]
    pub more: bool,
    /// `desc` for newest first, or `asc`.
    #[serde(default)]
    pub order: String,
    /// Maximum error in the order of rows of different nodes; null if the clock of a node is unknown.
    pub order_uncertainty_ms: Option<f64>,
    pub expected: usize,
    pub answered: usize,
    pub nodes: Vec<NodeReport>,
    pub next_cursor: Option<String>,
    /// Cursor of the page before this one, within the snapshot taken when the first page was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_cursor: Option<String>,
    pub count: u64,
    /// The requested range, absolute and half-open. An open end means the time of the request; rows of nodes whose clocks are
    /// ahead of that time are still included.
    pub from: String,
    pub to: String,
    /// Texts in the filter that are too short for the index; because of them, every row of the range was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unindexed_texts: Vec<String>,
    /// Set if nodes were still searching when the time limit of the page expired: in the requested order, everything up to this time was
    /// read, and `next_cursor` continues there. RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searched_to: Option<String>,
    /// Erased rows of the range that are not shown, because only their content could decide whether the filter selects them;
    /// `is:erased` shows them. Counted by the nodes and in the archive, without proof; absent if a scope limits what the caller may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
    /// Parts of the filter that may have been interpreted differently than intended, and suggestions if nothing matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_hints: Vec<String>,
    /// The filter that the caller is limited to. It applies in addition to the requested filter, and the answer contains nothing
    /// outside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_to: Option<String>,
}

impl Envelope {
    /// Whether nothing is missing except rows that were pruned under the cluster's policy. The command line then exits with code 0.
    pub fn is_whole(&self) -> bool {
        self.complete || self.complete_since.is_some()
    }
}

/// Request header that states the purpose of a query; it determines which action is recorded about the request.
pub const PURPOSE_HEADER: &str = "piperoll-purpose";
/// Purpose of a client that only counts and compares the rows and does not output them. The request is recorded as `audit.report`
/// instead of `audit.export`.
pub const PURPOSE_REPORT: &str = "report";

/// The last line of an NDJSON answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FinalRecord {
    #[serde(rename = "final")]
    pub envelope: Envelope,
}

/// `GET /api/v1/stats`: the counts, and the envelope that says which nodes they cover. If the answer is not complete, every
/// number is a lower bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatsAnswer {
    #[serde(flatten)]
    pub envelope: Envelope,
    /// Whether the aggregator read and verified every row. If not, the nodes counted from their indexes.
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

/// One node in the node list.
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
    /// Retention status of the node: how long it keeps rows, and why it cannot prune; null while the node does not answer.
    #[serde(default)]
    pub retention: Option<RetentionStatus>,
    /// Destinations that the node forwards entries to, with their progress.
    #[serde(default)]
    pub forward: Vec<ForwardStatus>,
}

/// `POST /api/v1/nodes/{id}/accept`: an operator has reviewed a fork or a rollback and accepts the log that the node
/// presents now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// The generation that the node presents.
    pub generation: String,
    /// Explanation of the fork or rollback, for the record.
    pub reason: String,
    /// Size in rows and root (base64) that the operator was shown (`alarm.presented` in `GET /nodes`). This log, or one that
    /// extends it, is accepted. Without size and root, the log that the node presents at the time of the request is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// A fork or a rollback that no operator has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlarmInfo {
    /// RFC 3339.
    pub since: String,
    /// The log that the node presented last; null if the node signs no checkpoint.
    pub presented: Option<PresentedLog>,
}

/// A log as identified by its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PresentedLog {
    pub generation: String,
    /// Size of the log in rows.
    pub size: u64,
    /// Root hash in base64.
    pub root: String,
}

/// Maximum time that an export waits for missing nodes.
pub const EXPORT_WAIT_SECONDS_MAX: u64 = 600;

/// `POST /api/v1/exports`: an evidence bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Reason for the export; it is recorded and included in the bundle.
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
    /// Time to wait if `incomplete` is `wait`: at most 600 seconds, by default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
}

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// Evidence: an archive with proofs that any third party can check offline. It omits rows that no witness has seen yet.
    #[default]
    Bundle,
    /// A view for spreadsheets.
    Csv,
    /// Output for programs, which ends with a final record.
    Ndjson,
}

/// Behavior of an export if expected nodes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum IncompleteArg {
    /// Responds with status 503 and the list of nodes.
    #[default]
    Refuse,
    /// Retries for up to `wait_seconds`, then refuses.
    Wait,
    /// Creates the bundle from the available rows and marks it PARTIAL.
    Partial,
}

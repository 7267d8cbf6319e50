//! Answers of a node on its local socket and on its peer interface.

use serde::{Deserialize, Serialize};

use piperoll_format::ids::{ClusterName, EntryId, Generation, NodeId};
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::{ArchiveDigest, EarlierPruned, Hold};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;
use piperoll_query::stats::Plan;

use crate::archived_row::ArchivedRowRef;

pub use crate::forward::{ForwardPauseRequest, ForwardResumeRequest, ForwardStatus};
pub use crate::verify::{Finding, FindingKind, VerifyLine, VerifySummary};

/// Paths of the local socket (HTTP/1.1 over a Unix socket).
pub mod socket_path {
    pub const ENTRIES: &str = "/v1/entries";
    /// Reports of events that an application knows to be lost.
    pub const GAPS: &str = "/v1/gaps";
    pub const SCAN: &str = "/v1/scan";
    pub const STATUS: &str = "/v1/status";
    pub const VERIFY: &str = "/v1/verify";
    pub const HEALTHZ: &str = "/healthz";
    pub const METRICS: &str = "/metrics";
    pub const CHECKPOINT: &str = "/v1/checkpoint";
    /// This path and all paths below are open only to root and the daemon's own user.
    pub const HOLDS: &str = "/v1/holds";
    pub const HOLDS_RELEASE: &str = "/v1/holds/release";
    pub const ERASE: &str = "/v1/erase";
    pub const PRUNE: &str = "/v1/prune";
    pub const PRUNE_PLAN: &str = "/v1/prune/plan";
    pub const CONFIRM_TIMES: &str = "/v1/confirm-times";
    pub const REINDEX: &str = "/v1/reindex";
    /// Destinations that entries are forwarded to.
    pub const FORWARD: &str = "/v1/forward";
    pub const FORWARD_PAUSE: &str = "/v1/forward/pause";
    pub const FORWARD_RESUME: &str = "/v1/forward/resume";
}

/// Paths of the peer interface (HTTP/2 over mTLS, aggregators only).
pub mod peer_path {
    pub const SCAN: &str = "/v1/peer/scan";
    pub const STATUS: &str = "/v1/peer/status";
    pub const CLOCK: &str = "/v1/peer/clock";
    pub const CHECKPOINT: &str = "/v1/peer/checkpoint";
    pub const COSIGNED: &str = "/v1/peer/cosigned";
    pub const MIRRORED: &str = "/v1/peer/mirrored";
    pub const PROOF: &str = "/v1/peer/proof";
    pub const INCLUSION: &str = "/v1/peer/inclusion";
}

pub const NDJSON: &str = "application/x-ndjson";

/// Receipt that assures the caller that an entry is on disk; sent only after the synced commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub node_id: NodeId,
    pub seq: u64,
    pub timestamp: Timestamp,
    pub id: EntryId,
    /// The entry's mac in hexadecimal.
    pub signature: String,
}

/// Events that an application knows to be lost; the node writes a `log.gap` entry about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapReport {
    /// Idempotency key: a report that is sent again is recorded only once.
    pub id: EntryId,
    /// Number of lost events; `None` if it is unknown.
    pub count: Option<u64>,
    /// Cause of the loss, one line of at most [`GAP_TEXT_BYTES_MAX`] bytes.
    pub cause: String,
    /// Name of the application, or other source, that lost the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Times of the first and the last lost event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

/// Maximum length of a gap's cause and of its source.
pub const GAP_TEXT_BYTES_MAX: usize = 256;

/// Result of one line of a batch, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineResult {
    /// Line number, starting at 1.
    pub line: usize,
    /// 201 if recorded, 200 for a duplicate (recorded before under the same id), or an error status.
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReport {
    pub accepted: usize,
    pub rejected: usize,
    pub results: Vec<LineResult>,
}

/// Request for rows of one node: selects the rows, their order, and the position at which to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanRequest {
    /// Canonical filter text; ages in it are already absolute.
    #[serde(default)]
    pub filter: String,
    /// Half-open range of `timestamp`.
    pub from: Timestamp,
    pub to: Timestamp,
    #[serde(default)]
    pub order: Order,
    /// Maximum number of rows to send; `None` means all.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Selects only rows strictly after this position in the requested order. Across nodes a position is
    /// `(timestamp, node_id, seq)`; the aggregator derives from it the position within one node's rows, `(timestamp, seq)`.
    #[serde(default)]
    pub after: Option<Position>,
    /// Excludes rows below this seq.
    #[serde(default)]
    pub from_seq: Option<u64>,
    /// The snapshot: excludes rows above this seq. `None` means the head at the time of the request.
    #[serde(default)]
    pub head: Option<u64>,
    /// The generation that the snapshot belongs to.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Counts the matching rows instead of sending them. Invalid rows are still sent, and so are erased rows that the filter
    /// selects by their position.
    #[serde(default)]
    pub count: Option<Plan>,
    /// Keeps the stream open: sends new rows as they are recorded, with progress marks in between. The stream has no end.
    #[serde(default)]
    pub follow: bool,
    /// Proves the rows against a tree of this many rows, whose root the client has from a checkpoint that it trusts.
    #[serde(default)]
    pub prove: Option<u64>,
}

/// First frame of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHead {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub generation: Generation,
    /// Newest row of the log; `None` if the log is empty.
    pub head_seq: Option<u64>,
    pub oldest_seq: Option<u64>,
    /// Log start, if rows were pruned.
    #[serde(default)]
    pub pruned: Option<PrunedRows>,
    /// The range of rows sealed under each epoch.
    #[serde(default)]
    pub epochs: Vec<EpochSpan>,
    /// Reason why the node no longer trusts its own database file; the node still sends its rows.
    #[serde(default)]
    pub fault: Option<String>,
    /// Erased rows of the range that are not sent, because only their content could decide whether the filter selects them.
    #[serde(default)]
    pub erased: u64,
}

/// A node's statement about rows that it has pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedRows {
    /// First retained row.
    pub to_seq: u64,
    /// Newest timestamp of any pruned row.
    pub newest: Timestamp,
    /// The `log.pruned` entry that records the prune.
    pub entry_seq: u64,
}

/// Last frame of a scan; a stream that ends without it was truncated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    pub rows: u64,
    pub scanned: u64,
    /// Whether the limit was reached, so that there may be more rows.
    pub more: bool,
    /// Messages about gaps and other sequence faults in the scanned range.
    pub faults: Vec<String>,
}

/// Status of a node, as reported by the node itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub generation: Generation,
    pub version: String,
    /// Newest row known to the writer.
    pub head_seq: Option<u64>,
    /// Number of rows up to the newest one in the database at this moment; smaller than the writer expects if the end of the
    /// database was cut off.
    #[serde(default)]
    pub rows_stored: Option<u64>,
    pub oldest_seq: Option<u64>,
    pub last_timestamp: Option<Timestamp>,
    pub now: Timestamp,
    pub started_at: Timestamp,
    /// Reason why appends are currently refused.
    pub write_fault: Option<String>,
    /// Reason why the database file is not trusted.
    pub read_fault: Option<String>,
    pub database_bytes: u64,
    pub disk_free_bytes: u64,
    pub certificate_not_after: Option<Timestamp>,
    /// Reads that panicked since the node started; their threads were replaced.
    #[serde(default)]
    pub reader_panics: u64,
    /// Rows covered by the newest checkpoint, and by the newest one that a witness cosigned.
    #[serde(default)]
    pub signed_size: u64,
    #[serde(default)]
    pub witnessed_size: u64,
    #[serde(default)]
    pub pruned: Option<PrunedRows>,
    /// Extent of the search index.
    #[serde(default)]
    pub index: Option<IndexExtent>,
    /// Status of retention.
    #[serde(default)]
    pub retention: Option<RetentionStatus>,
    /// Destinations that entries are forwarded to, with their progress.
    #[serde(default)]
    pub forward: Vec<ForwardStatus>,
    /// Sources that currently cannot be read, with the reasons.
    #[serde(default)]
    pub intake: Vec<IntakeStatus>,
}

/// A source that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeStatus {
    pub name: String,
    /// The problem, and the setting to change. The node keeps the offset of the source until the source can be read again.
    pub problem: String,
}

/// Progress of a stream that follows a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Every row below this seq was processed.
    pub next_seq: u64,
    /// Watermark: no row that is recorded later has an earlier time, unless the node's clock is set back.
    pub time: Timestamp,
    /// Messages about faults of the rows since the last mark.
    #[serde(default)]
    pub faults: Vec<String>,
}

/// Extent of a log's search index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexExtent {
    /// Number of rows in the index; searches read all other rows directly.
    pub rows: u64,
    /// Number of rows in the log.
    pub of: u64,
    /// Index files, one per full block, and their total size in bytes.
    pub blocks: u64,
    pub bytes: u64,
}

/// Status of retention, as reported by the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetentionStatus {
    /// Days that rows are kept; `None` means forever.
    pub keep_days: Option<u32>,
    /// Maximum size of the database in bytes.
    pub size_max: Option<u64>,
    pub used_bytes: u64,
    /// Current activity: `idle`, `waiting for a witness`, `pruning` or `shrinking the file`.
    pub doing: String,
    /// Rows still to be deleted.
    pub rows_left: u64,
    /// Bytes that were returned to the file system by the last prune since the node started.
    pub bytes_freed: u64,
    /// Reason why the last attempt pruned less than it should have.
    pub problem: Option<String>,
    /// Number of days by which the oldest rows exceed the retention period, according to their own timestamps.
    #[serde(default)]
    pub late_days: u32,
    /// Reason why rows are kept beyond the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_because: Option<String>,
    /// Seq below which an operator has confirmed the timestamps of all rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_below: Option<u64>,
    /// Names of the holds that keep rows.
    pub holds: Vec<String>,
}

/// Confirms, on the operator's responsibility, the timestamps of rows that were recorded before the node began to count how long
/// rows have been witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTimesRequest {
    pub reason: String,
    /// Whether to report only which rows would be affected.
    #[serde(default)]
    pub dry_run: bool,
}

/// Range of rows for which automatic retention relies on the rows' own timestamps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedTimes {
    pub from_seq: u64,
    pub to_seq: u64,
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    /// The entry that records the confirmation; `None` for a dry run.
    pub entry_seq: Option<u64>,
}

/// A checkpoint of a node with the cosignature of the cluster's archive, which has all of its rows from `first_seq` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirroredCheckpoint {
    /// Signed note (C2SP signed-note), with the node's signature and the archive's cosignature (C2SP tlog-mirror).
    pub note: String,
    /// First archived row of the log.
    pub first_seq: u64,
}

/// A witness's request for the newest checkpoint, and for a proof that this checkpoint leaves the `old` rows pinned by the
/// witness unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointQuery {
    #[serde(default)]
    pub old: u64,
    /// Generation of the archived log whose last checkpoint is requested; absent in a request for the current log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// A checkpoint, and the proof that its log extends the log named in the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointAnswer {
    /// A signed note (C2SP tlog-checkpoint). Empty for an archived log that never signed a checkpoint.
    pub note: String,
    /// Generation of the requested log if it is archived. Absent if the current log was requested, and in answers of earlier
    /// versions, which always describe the current log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Consistency proof from `old` rows, base64; empty if `old` is 0 or not below the checkpoint's size.
    pub proof: Vec<String>,
    /// Time range of the rows covered by the checkpoint, and the logs before this one. Absent in answers of earlier versions. Not
    /// signed: a witness uses it only to report which time ranges a log may have covered if that log is lost later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<LogSpan>,
}

/// Beginning and end of a log, as reported by the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpan {
    /// Time of the oldest retained row.
    pub oldest: Option<Timestamp>,
    /// Time of the last row that the checkpoint covers.
    pub newest: Option<Timestamp>,
    /// Era of that row. If it is above 0, the clock was set back at some time before that row, and an older row may have a later
    /// time.
    #[serde(default)]
    pub era: u32,
    /// The log that this one replaced, according to the `log.generation_begun` entry at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<LogBefore>,
    /// Log start, if rows were pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PrunedRows>,
    /// Archived logs of this node that can still be read. A request identifies such a log by its generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<LogAside>,
}

/// An archived log, which was replaced by another one but can still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAside {
    pub generation: Generation,
    pub rows: u64,
}

/// A log that was replaced by another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBefore {
    pub generation: Option<Generation>,
    /// Rows covered by the newest checkpoint that the log signed, and by the newest one that a witness cosigned.
    #[serde(default)]
    pub signed_rows: Option<u64>,
    #[serde(default)]
    pub witnessed_rows: Option<u64>,
    /// Rows in the log, signed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Time at which the log was replaced.
    pub at: Timestamp,
}

/// Maximum number of runs of rows in one range proof.
pub const PROOF_RUNS_MAX: usize = 1_000_000;
/// Maximum size of a [`ProofRequest`] in JSON, enough for [`PROOF_RUNS_MAX`] runs.
pub const PROOF_REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Requests one range proof for many rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    pub generation: Generation,
    /// Size of the tree in rows.
    pub size: u64,
    /// Begin and end of every run; runs ascend and are not adjacent.
    pub runs: Vec<(u64, u64)>,
}

/// Requests the inclusion proof of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionQuery {
    pub generation: Generation,
    pub size: u64,
    pub seq: u64,
}

/// Hashes of a proof, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofAnswer {
    pub hashes: Vec<String>,
}

/// Requests a hold. Without a beginning or an end, the hold is open on that side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    pub name: String,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldReleaseRequest {
    pub name: String,
    pub reason: String,
}

/// A hold and the entry that set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRows {
    pub entry_seq: u64,
    #[serde(flatten)]
    pub hold: Hold,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    pub seq: u64,
    pub reason: String,
    /// Set for a row that the node pruned and that the archive still has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivedRowRef>,
}

/// Result of an operation: the entry that records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecorded {
    pub entry_seq: u64,
    /// For an erasure: false if an open read transaction prevents emptying the WAL, which also contains the erased content.
    #[serde(default)]
    pub wal_emptied: bool,
}

/// Requests a prune plan if `to_seq` is `None`; otherwise requests that the plan with this `to_seq` is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    /// Selects the rows that were recorded before this time.
    pub before: Timestamp,
    /// The `to_seq` of the plan.
    #[serde(default)]
    pub to_seq: Option<u64>,
    #[serde(default)]
    pub archive: Option<ArchiveDigest>,
    /// Whether the operator takes responsibility for the age of rows that have not been witnessed for the whole retention period.
    #[serde(default)]
    pub confirm: bool,
}

/// Plan of a prune: the rows that could be pruned now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Current log start.
    pub from_seq: u64,
    /// Log start after the prune; equal to `from_seq` if nothing can be pruned.
    pub to_seq: u64,
    /// Times of the first and the last row that would be pruned.
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    /// Messages that say why less can be pruned than was requested.
    pub limits: Vec<String>,
    /// Archived logs that this one replaced and that are pruned together with its first rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierPruned>,
    /// The first row that, as far as the node knows, has not been witnessed for the whole retention period. The age of this row
    /// and of later ones is known only from the rows' own timestamps, so `confirm` is required. Absent if all rows have been
    /// witnessed for that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed_from: Option<u64>,
}

/// Minimal answer for measuring the node's clock offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    pub now_micros: i64,
    /// Newest version of the filter language that the node supports; absent in answers of nodes that predate version 2 of the
    /// language.
    #[serde(default = "filter_version_1")]
    pub filter_version: u32,
}

fn filter_version_1() -> u32 {
    1
}

//! Answers of a node on its local socket and on its peer interface.

use serde::{Deserialize, Serialize};

use piperoll_format::ids::{ClusterName, EntryId, Generation, NodeId};
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::{ArchiveDigest, EarlierPruned, Hold};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;
use piperoll_query::stats::Plan;

pub use crate::forward::{ForwardPauseRequest, ForwardResumeRequest, ForwardStatus};
pub use crate::verify::{Finding, FindingKind, VerifyLine, VerifySummary};

/// Paths of the local socket (HTTP/1.1 over a Unix socket).
pub mod socket_path {
    pub const ENTRIES: &str = "/v1/entries";
    /// Events that are known to be lost.
    pub const GAPS: &str = "/v1/gaps";
    pub const SCAN: &str = "/v1/scan";
    pub const STATUS: &str = "/v1/status";
    pub const VERIFY: &str = "/v1/verify";
    pub const HEALTHZ: &str = "/healthz";
    pub const METRICS: &str = "/metrics";
    pub const CHECKPOINT: &str = "/v1/checkpoint";
    /// For root and the daemon's own user only, as all that follow.
    pub const HOLDS: &str = "/v1/holds";
    pub const HOLDS_RELEASE: &str = "/v1/holds/release";
    pub const ERASE: &str = "/v1/erase";
    pub const PRUNE: &str = "/v1/prune";
    pub const PRUNE_PLAN: &str = "/v1/prune/plan";
    pub const CONFIRM_TIMES: &str = "/v1/confirm-times";
    pub const REINDEX: &str = "/v1/reindex";
    /// Where entries are handed on to.
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
    pub const PROOF: &str = "/v1/peer/proof";
    pub const INCLUSION: &str = "/v1/peer/inclusion";
}

pub const NDJSON: &str = "application/x-ndjson";

/// Proof to the caller that an entry is on disk; sent only after the synced commit.
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
    /// The same report sent again is recorded once.
    pub id: EntryId,
    /// None when it cannot be known.
    pub count: Option<u64>,
    /// Why, one line of at most [`GAP_TEXT_BYTES_MAX`] bytes.
    pub cause: String,
    /// Who lost them, such as the application's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When the first and the last of them happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
}

/// Of a gap's cause and source.
pub const GAP_TEXT_BYTES_MAX: usize = 256;

/// What became of one line of a batch, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineResult {
    /// From 1.
    pub line: usize,
    /// 201 recorded, 200 recorded before under the same id, or an error status.
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

/// A read of one node: which rows, in which order, from where on.
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
    /// Most rows to send; none means all.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Only rows strictly behind this one in the order asked for. The place is `(timestamp, node_id, seq)`;
    /// against one node's rows it shrinks to `(timestamp, seq)`, which the reader works out.
    #[serde(default)]
    pub after: Option<Position>,
    /// No row below this seq.
    #[serde(default)]
    pub from_seq: Option<u64>,
    /// The snapshot: no row above it. None means the head at the moment of asking.
    #[serde(default)]
    pub head: Option<u64>,
    /// The generation the snapshot belongs to.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Count the rows that fit instead of sending them. Those that are not sound are sent all the same, and so are erased
    /// ones that the filter selects by their place.
    #[serde(default)]
    pub count: Option<Plan>,
    /// Go on with the rows that are recorded later, and say in between how far it is; the stream has no end.
    #[serde(default)]
    pub follow: bool,
    /// Prove the rows under a tree of this many rows, whose root the reader has from a checkpoint it trusts.
    #[serde(default)]
    pub prove: Option<u64>,
}

/// First frame of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHead {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub generation: Generation,
    /// Newest row of the log; none when it is empty.
    pub head_seq: Option<u64>,
    pub oldest_seq: Option<u64>,
    /// Where the log begins, when rows were pruned.
    #[serde(default)]
    pub pruned: Option<PrunedRows>,
    /// Which epoch seals which rows.
    #[serde(default)]
    pub epochs: Vec<EpochSpan>,
    /// Why the node does not trust its own file any more; its rows are sent all the same.
    #[serde(default)]
    pub fault: Option<String>,
    /// Erased rows of the range that are not sent, because only what they said could decide whether the filter selects them.
    #[serde(default)]
    pub erased: u64,
}

/// What a node says about rows that it holds no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedRows {
    /// The first row that is there.
    pub to_seq: u64,
    /// The newest time that any of the others had.
    pub newest: Timestamp,
    /// The entry that says so.
    pub entry_seq: u64,
}

/// Last frame of a scan; a stream that ends without it was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    pub rows: u64,
    pub scanned: u64,
    /// The limit was reached; there may be more rows.
    pub more: bool,
    /// Gaps and other faults of the sequence inside the scanned range, in words.
    pub faults: Vec<String>,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub generation: Generation,
    pub version: String,
    /// The newest row that the writer knows of.
    pub head_seq: Option<u64>,
    /// Rows up to the newest that stands in the database at this moment; fewer than the writer knows of where its end was cut off.
    #[serde(default)]
    pub rows_stored: Option<u64>,
    pub oldest_seq: Option<u64>,
    pub last_timestamp: Option<Timestamp>,
    pub now: Timestamp,
    pub started_at: Timestamp,
    /// Why appends are refused at the moment.
    pub write_fault: Option<String>,
    /// Why the file is not trusted.
    pub read_fault: Option<String>,
    pub database_bytes: u64,
    pub disk_free_bytes: u64,
    pub certificate_not_after: Option<Timestamp>,
    /// Reads that ended in a fault of the program since the node started; their threads were replaced.
    #[serde(default)]
    pub reader_panics: u64,
    /// Rows under the newest checkpoint, and under the newest that a witness cosigned.
    #[serde(default)]
    pub signed_size: u64,
    #[serde(default)]
    pub witnessed_size: u64,
    #[serde(default)]
    pub pruned: Option<PrunedRows>,
    /// How far the index is.
    #[serde(default)]
    pub index: Option<IndexExtent>,
    /// What retention does and does not do.
    #[serde(default)]
    pub retention: Option<RetentionStatus>,
    /// Where entries are handed on to, and how far.
    #[serde(default)]
    pub forward: Vec<ForwardStatus>,
    /// Sources that cannot be read at the moment, and why.
    #[serde(default)]
    pub intake: Vec<IntakeStatus>,
}

/// A source that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeStatus {
    pub name: String,
    /// What is wrong, and the setting to change. Its place is kept meanwhile.
    pub problem: String,
}

/// How far a stream that follows a log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Every row below this seq was looked at.
    pub next_seq: u64,
    /// No later row has an earlier time, unless the node's clock steps back.
    pub time: Timestamp,
    /// What was wrong with the rows since the last mark, in words.
    #[serde(default)]
    pub faults: Vec<String>,
}

/// How far the index of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexExtent {
    /// Rows in it; searches read the others.
    pub rows: u64,
    /// Rows there are.
    pub of: u64,
    /// Its files, one for each full block, and their bytes.
    pub blocks: u64,
    pub bytes: u64,
}

/// What retention does, as a node says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetentionStatus {
    /// Days that rows are kept; none means for ever.
    pub keep_days: Option<u32>,
    /// Bytes that the database may use.
    pub size_max: Option<u64>,
    pub used_bytes: u64,
    /// `idle`, `waiting for a witness`, `pruning`, `shrinking the file`.
    pub doing: String,
    /// Rows still to drop.
    pub rows_left: u64,
    /// What the last prune gave back to the file system since the node started.
    pub bytes_freed: u64,
    /// Why the last attempt did less than it should.
    pub problem: Option<String>,
    /// By how many days the oldest rows are kept longer than the policy says, by their own times.
    #[serde(default)]
    pub late_days: u32,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_because: Option<String>,
    /// For the rows below this one an operator answered that their own times are right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_below: Option<u64>,
    /// Holds that keep rows.
    pub holds: Vec<String>,
}

/// An operator answers for the times of rows that are older than what the node knows from witnesses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTimesRequest {
    pub reason: String,
    /// Only say which rows these are.
    #[serde(default)]
    pub dry_run: bool,
}

/// The rows whose own times automatic retention goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedTimes {
    pub from_seq: u64,
    pub to_seq: u64,
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    /// The entry about it; none for a dry run.
    pub entry_seq: Option<u64>,
}

/// What a witness asks for: the newest checkpoint, and that the `old` rows it has pinned are unchanged in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointQuery {
    #[serde(default)]
    pub old: u64,
    /// Of a log that was put aside, the last checkpoint that it signed; without it, the present log is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// A checkpoint and the proof that it goes on from the one asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointAnswer {
    /// A signed note (C2SP tlog-checkpoint). Empty for a log that was put aside and had signed nothing.
    pub note: String,
    /// The log that was put aside and asked about. Missing where the present one was, and in answers of earlier versions, which are about
    /// that one whatever was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Consistency proof from `old` rows, base64; empty when `old` is 0 or not below the checkpoint's size.
    pub proof: Vec<String>,
    /// Which times the rows under it have, and what stood here before. Missing in answers of earlier versions. Not signed: a
    /// witness uses it only to say which ranges a log that is lost later may have been about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<LogSpan>,
}

/// Where a log begins and ends, as the node says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpan {
    /// Time of the oldest row that is there.
    pub oldest: Option<Timestamp>,
    /// Time of the last row under the checkpoint.
    pub newest: Option<Timestamp>,
    /// The era of that row; above 0 the clock has stepped back before it, and an older row may have a later time.
    #[serde(default)]
    pub era: u32,
    /// The log that this one took the place of, by the entry `log.generation_begun` that it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<LogBefore>,
    /// Where the log begins, when rows were pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<PrunedRows>,
    /// Logs that stood here before and can still be read, by their generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<LogAside>,
}

/// A log that was put aside for another one, and is read from where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAside {
    pub generation: Generation,
    pub rows: u64,
}

/// A log that another one took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBefore {
    pub generation: Option<Generation>,
    /// Rows under the newest checkpoint that it signed, and under the newest that a witness cosigned.
    #[serde(default)]
    pub signed_rows: Option<u64>,
    #[serde(default)]
    pub witnessed_rows: Option<u64>,
    /// Rows that were in it, signed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// When it was replaced.
    pub at: Timestamp,
}

/// Runs of rows in one range proof.
pub const PROOF_RUNS_MAX: usize = 1_000_000;
/// A request of that many runs as JSON.
pub const PROOF_REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks for one range proof of many rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    pub generation: Generation,
    /// Rows of the tree.
    pub size: u64,
    /// Begin and end of every run, ascending and apart from each other.
    pub runs: Vec<(u64, u64)>,
}

/// Asks for the inclusion proof of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionQuery {
    pub generation: Generation,
    pub size: u64,
    pub seq: u64,
}

/// Hashes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofAnswer {
    pub hashes: Vec<String>,
}

/// Asks for a hold. Without a beginning or an end it reaches as far as the log does.
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
}

/// The entry that says what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub entry_seq: u64,
    /// For an erasure: false while a reader keeps the WAL, which holds the content too, from being emptied.
    #[serde(default)]
    pub wal_emptied: bool,
}

/// Asks for a plan when `to_seq` is none, and for that plan to be carried out otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    /// Rows recorded before this time.
    pub before: Timestamp,
    /// What the plan said.
    #[serde(default)]
    pub to_seq: Option<u64>,
    #[serde(default)]
    pub archive: Option<ArchiveDigest>,
    /// The operator answers for the age of rows that were not witnessed for as long as rows have to stay.
    #[serde(default)]
    pub confirm: bool,
}

/// What could be pruned now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Where the log begins.
    pub from_seq: u64,
    /// Where it would begin; the same when nothing can go.
    pub to_seq: u64,
    /// Times of the first and the last row that would go.
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
    /// What keeps more from going than was asked for, in words.
    pub limits: Vec<String>,
    /// Logs that this one took the place of, and that go with its first rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierPruned>,
    /// Rows from this one on were not witnessed for as long as rows have to stay, as far as the node knows: only their own times say
    /// that they are old, and `confirm` is needed. Missing when all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed_from: Option<u64>,
}

/// The smallest answer there is, for measuring the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    pub now_micros: i64,
    /// Newest version of the filter language that the node reads; nodes of before version 2 do not say it.
    #[serde(default = "filter_version_1")]
    pub filter_version: u32,
}

fn filter_version_1() -> u32 {
    1
}

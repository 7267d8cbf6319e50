//! Answers about the archive that an aggregator writes.

use serde::{Deserialize, Serialize};

/// State of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ArchiveVerdict {
    /// The last round was successful.
    Ok,
    /// No round has ended since the aggregator started.
    Pending,
    /// The store does not answer.
    Unreachable,
    /// The archive has fewer steps than were seen. Stays until an operator accepts the archive.
    Rollback,
    /// The archive has another step than was seen. Stays until an operator accepts the archive.
    Fork,
    /// Another writer uses the archive.
    AnotherWriter,
    /// The last round failed for another reason.
    Error,
}

impl ArchiveVerdict {
    /// Returns the verdict as JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Unreachable => "unreachable",
            Self::Rollback => "rollback",
            Self::Fork => "fork",
            Self::AnotherWriter => "another_writer",
            Self::Error => "error",
        }
    }
}

/// `GET /archive`: the archive and what it has of every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArchiveStatus {
    pub archive: String,
    /// Location, without credentials.
    pub url: String,
    pub verdict: ArchiveVerdict,
    /// Explanation, present if the last round failed.
    pub reason: Option<String>,
    /// Whether a round is running now.
    pub running: bool,
    /// Number of the newest step; 0 if there is none.
    pub step: u64,
    /// Digest of the newest step, in hexadecimal.
    pub sha256: Option<String>,
    /// Time at which this aggregator committed its last step since it started, RFC 3339.
    pub last_step_at: Option<String>,
    /// Time at which the last round ended, RFC 3339.
    pub last_round_at: Option<String>,
    /// One item for every log of every node of the roster.
    pub nodes: Vec<ArchiveNode>,
    /// Nodes whose rows were due in the last round and could not be read.
    pub missing: Vec<MissingNode>,
    /// Files that are not part of the archive any more, and that the store keeps.
    #[serde(default)]
    pub pending_deletions: Vec<KeptFile>,
    /// Reasons why content that should be erased, or rows that should be removed, are still in the archive.
    #[serde(default)]
    pub not_removed: Vec<String>,
}

/// A file that was replaced or removed, and that the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptFile {
    pub name: String,
    /// Time until which the store keeps it, if that is known. RFC 3339.
    pub until: Option<String>,
    pub reason: String,
}

/// Archived rows of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArchiveNode {
    pub node_id: String,
    pub generation: Option<String>,
    /// First archived row.
    pub first_seq: u64,
    /// Rows below this seq are archived, from `first_seq` on.
    pub archived_rows: u64,
    /// Newest time of any archived row, RFC 3339.
    pub archived_through: Option<String>,
    /// Rows that this aggregator has witnessed; absent for a log that was replaced.
    pub witnessed_rows: Option<u64>,
    /// Witnessed rows that are not archived yet.
    pub pending_rows: u64,
}

/// A node whose rows were due and could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingNode {
    pub node_id: String,
    pub reason: String,
}

/// `POST /archive/run`: what a round added to the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ArchiveRun {
    /// Numbers of the steps.
    pub steps: Vec<u64>,
    pub rows: u64,
    pub files: u64,
    /// Nodes whose rows were due and could not be read.
    pub missing: Vec<MissingNode>,
}

/// Body of `POST /archive/run`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ArchiveRunRequest {
    /// Whether to archive the rows up to the newest cosigned checkpoints, instead of only those of ended days.
    #[serde(default)]
    pub now: bool,
}

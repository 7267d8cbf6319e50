//! Plans: the rows and files that a step is going to add or to replace. An attempt that was interrupted is repeated from its plan, so that it creates the same
//! files.

use piperoll_format::note::{NoteError, SigningKey, VerifyingKey};
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::names;
use super::signed::{Digest, RecordError, read_signed, write_signed};
use super::step::{FileRecord, Missing, RowOfFile, STEP_BYTES_MAX, StepKind};
use crate::row::LogId;

const HEADING: &str = "piperoll archive plan v1";

/// Content of a step before its files exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub number: u64,
    /// Digest of the previous step, as in [`super::Step`].
    pub previous: Digest,
    #[serde(default, skip_serializing_if = "StepKind::is_add")]
    pub kind: StepKind,
    pub created: Timestamp,
    /// Host and instance of the writer.
    pub writer: String,
    pub logs: Vec<PlannedLog>,
    pub files: Vec<PlannedFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Files that the step is going to replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<FileErasure>,
}

/// Rows of one file whose content is going to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileErasure {
    /// Logs of the file, to which its runs and `erased` refer by index.
    pub logs: Vec<LogId>,
    /// The present file.
    pub file: FileRecord,
    pub erased: Vec<RowOfFile>,
}

/// Rows of one log that a step is going to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedLog {
    pub log: LogId,
    pub from_seq: u64,
    pub to_seq: u64,
    /// Cosigned checkpoint that covers the rows.
    pub checkpoint: String,
}

/// A file that a step is going to create. Its name contains the digest of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: Digest,
    pub tail_offset: u64,
    pub tail_sha256: Digest,
}

impl Plan {
    /// Serializes and signs the plan.
    ///
    /// # Errors
    /// Fails if the content cannot be a note.
    pub fn to_bytes(&self, key: &SigningKey) -> Result<Vec<u8>, NoteError> {
        write_signed(HEADING, self, key)
    }

    /// Reads the plan in the object `name`.
    ///
    /// # Errors
    /// Fails if the bytes are not a plan of the step in the name, signed by `key`.
    pub fn read(name: &str, bytes: &[u8], key: &VerifyingKey) -> Result<Self, RecordError> {
        let plan: Self = read_signed(name, HEADING, bytes, key, STEP_BYTES_MAX)?;
        if Some(plan.number) != names::number_of_plan(name) {
            return Err(RecordError::form(name, format!("it is a plan of step {}", plan.number)));
        }
        Ok(plan)
    }
}

//! Plans: the rows and files that a step is going to add. An attempt that was interrupted is repeated from its plan, so that it creates the same
//! files.

use piperoll_format::note::{NoteError, SigningKey, VerifyingKey};
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::names;
use super::signed::{Digest, RecordError, read_signed, write_signed};
use super::step::{Missing, STEP_BYTES_MAX};
use crate::row::LogId;

const HEADING: &str = "piperoll archive plan v1";

/// Content of a step before its files exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub number: u64,
    /// Digest of the previous step, as in [`super::Step`].
    pub previous: Digest,
    pub created: Timestamp,
    /// Host and instance of the writer.
    pub writer: String,
    pub logs: Vec<PlannedLog>,
    pub files: Vec<PlannedFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
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
}

impl Plan {
    /// Serializes and signs the plan.
    ///
    /// # Errors
    /// Fails if the content cannot be a note.
    pub fn to_bytes(&self, key: &SigningKey) -> Result<Vec<u8>, NoteError> {
        write_signed(HEADING, self, key)
    }

    /// Reads plan `number`.
    ///
    /// # Errors
    /// Fails if the bytes are not this plan, signed by `key`.
    pub fn read(number: u64, bytes: &[u8], key: &VerifyingKey) -> Result<Self, RecordError> {
        let name = names::plan(number);
        let plan: Self = read_signed(&name, HEADING, bytes, key, STEP_BYTES_MAX)?;
        if plan.number != number {
            return Err(RecordError::form(&name, format!("it is plan {}", plan.number)));
        }
        Ok(plan)
    }
}

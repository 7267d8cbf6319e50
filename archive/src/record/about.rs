//! The object `archive`: identifies the archive.

use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::note::{NoteError, SigningKey, VerifyingKey};
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::ARCHIVE;
use super::signed::{RecordError, read_signed, write_signed};

/// Version 1 is the heading of the files that `piperoll node prune --archive` writes.
const HEADING: &str = "piperoll archive v2";
/// Maximum size of the object `archive`.
pub(crate) const ABOUT_BYTES_MAX: usize = 64 * 1024;

/// Identity of an archive, made by `piperoll archive init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub cluster: ClusterName,
    pub archive: NodeId,
    pub created: Timestamp,
}

impl About {
    /// Serializes and signs the record.
    ///
    /// # Errors
    /// Fails if the content cannot be a note.
    pub fn to_bytes(&self, key: &SigningKey) -> Result<Vec<u8>, NoteError> {
        write_signed(HEADING, self, key)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Fails if the bytes are not a record that `key` signed.
    pub fn read(bytes: &[u8], key: &VerifyingKey) -> Result<Self, RecordError> {
        read_signed(ARCHIVE, HEADING, bytes, key, ABOUT_BYTES_MAX)
    }
}

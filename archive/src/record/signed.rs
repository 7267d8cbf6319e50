//! Signed notes of the archive: a heading and one JSON object, signed with the archive's key.

use std::fmt;

use piperoll_format::digest::sha256;
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::note::{KeyKind, Note, NoteError, SigningKey, SigningSeed, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 of an object, in lower-case hexadecimal in texts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Returns the digest of an object.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(sha256([bytes]))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .ok()
            .filter(|()| hex::encode(bytes) == text)
            .ok_or_else(|| serde::de::Error::custom("not a SHA-256 in lower-case hexadecimal"))?;
        Ok(Self(bytes))
    }
}

/// Reasons why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{name} is not valid: {reason}")]
    Form { name: String, reason: String },
    #[error("{name} was not signed by the archive's key: {source}")]
    Signature { name: String, source: NoteError },
}

impl RecordError {
    pub(super) fn form(name: &str, reason: impl fmt::Display) -> Self {
        Self::Form { name: name.to_owned(), reason: reason.to_string() }
    }
}

/// Private keys of an archive's writer.
#[derive(Clone)]
pub struct ArchiveKeys {
    /// Signs plans and steps (Ed25519, type 0x01).
    pub steps: SigningKey,
    /// Cosigns the checkpoints whose rows the archive holds (C2SP tlog-mirror; type 0x04).
    pub mirror: SigningKey,
}

impl ArchiveKeys {
    /// Name under which both keys of an archive sign. It differs from every witness's name.
    pub fn name(cluster: &ClusterName, archive: &NodeId) -> String {
        format!("{cluster}/archive/{archive}")
    }

    /// Returns the keys of an archive, or `None` if its name is not a valid name of a key.
    pub fn new(cluster: &ClusterName, archive: &NodeId, steps: &SigningSeed, mirror: &SigningSeed) -> Option<Self> {
        let name = Self::name(cluster, archive);
        Some(Self { steps: steps.named(&name, KeyKind::Log)?, mirror: mirror.named(&name, KeyKind::Witness)? })
    }
}

/// Returns the bytes of a signed record. The signature is deterministic, so equal content has equal bytes.
pub(super) fn write_signed<T: Serialize>(heading: &str, content: &T, key: &SigningKey) -> Result<Vec<u8>, NoteError> {
    let json = serde_json::to_string(content).unwrap_or_default();
    let note = Note::unsigned(format!("{heading}\n{json}\n"))?;
    let signature = key.sign(note.text());
    Ok(note.with(signature).to_string().into_bytes())
}

/// Reads a signed record.
///
/// # Errors
/// Fails if the bytes are longer than `bytes_max`, are not signed by `key`, or are not a record with this heading.
pub fn read_signed<T: DeserializeOwned>(
    name: &str,
    heading: &str,
    bytes: &[u8],
    key: &VerifyingKey,
    bytes_max: usize,
) -> Result<T, RecordError> {
    let text = std::str::from_utf8(bytes).map_err(|error| RecordError::form(name, error))?;
    let note = Note::parse_up_to(text, bytes_max).map_err(|error| RecordError::form(name, error))?;
    if note.signatures() != 1 {
        return Err(RecordError::form(name, "it must have exactly one signature"));
    }
    note.verify(key).map_err(|source| RecordError::Signature { name: name.to_owned(), source })?;
    let content = note.text().strip_prefix(heading).and_then(|rest| rest.strip_prefix('\n'));
    let content = content.ok_or_else(|| RecordError::form(name, format!("its first line is not {heading:?}")))?;
    serde_json::from_str(content).map_err(|error| RecordError::form(name, error))
}

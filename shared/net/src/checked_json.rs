//! Reads and writes small state files as JSON that includes its own SHA-256, so that a flipped bit is recognized as damage and
//! not mistaken for a deliberate change.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::atomic_file::replace;

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    content: Value,
    /// Missing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Computes the digest of the compact JSON text, in which object keys are sorted by name.
fn digest(content: &Value) -> String {
    hex::encode(Sha256::digest(content.to_string()))
}

/// Serializes the content together with its digest. The content must be an object without a member `sha256`.
///
/// # Errors
/// Fails if the content cannot be serialized as JSON.
pub fn to_bytes<T: Serialize>(content: &T) -> io::Result<Vec<u8>> {
    let content = serde_json::to_value(content).map_err(io::Error::other)?;
    let sha256 = Some(digest(&content));
    serde_json::to_vec_pretty(&Stored { content, sha256 }).map_err(io::Error::other)
}

/// Replaces the whole file with this content and its digest, synced, with mode 0600.
///
/// # Errors
/// Fails if the file cannot be written; its old content then remains.
pub fn write<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    replace(path, &to_bytes(content)?)
}

/// Reads the output of [`to_bytes`]. A file without a digest was written by an earlier version and is accepted.
///
/// # Errors
/// Returns a message if the file is damaged or does not have the expected content.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let Stored { content, sha256 } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if sha256.is_some_and(|sha256| sha256 != digest(&content)) {
        return Err("the file is damaged: its content does not match its digest".to_owned());
    }
    serde_json::from_value(content).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope {
        rows: u64,
        name: Option<String>,
    }

    #[test]
    fn every_flipped_bit_is_noticed() -> Result<(), Box<dyn std::error::Error>> {
        let kept = Envelope { rows: 71, name: Some("x".to_owned()) };
        let bytes = to_bytes(&kept)?;
        assert_eq!(from_bytes::<Envelope>(&bytes)?, kept);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = from_bytes::<Envelope>(&flipped) {
                // The flip hit white space, or the case of a digit of the digest.
                assert_eq!(read, kept, "bit {bit}");
            }
        }
        assert_eq!(
            from_bytes::<Envelope>(br#"{"rows":3,"name":null}"#)?,
            Envelope { rows: 3, name: None },
            "an earlier version"
        );
        Ok(())
    }
}

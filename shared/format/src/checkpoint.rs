//! Checkpoints: a node's signed statement "my log has size N and root R" (C2SP tlog-checkpoint v1.0.0), and the
//! cosignature by which a witness confirms that it has seen that statement.

use crate::merkle::{Hash, decode_hash, empty_root, encode_hash};
use crate::note::{Note, NoteError, SigningKey, VerifyingKey};

/// Size and root of one log at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `cluster/node/generation`, which is also the name of the key that signs it.
    pub origin: String,
    /// Rows covered: those with `seq < size`.
    pub size: u64,
    pub root: Hash,
}

/// Reasons why a note is not a valid checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("invalid checkpoint text: {0}")]
    Text(&'static str),
    #[error("the origin is {found}, not {expected}")]
    Origin { found: String, expected: String },
}

impl Checkpoint {
    /// Text of the checkpoint: origin, size and root, one per line, without extension lines.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, encode_hash(&self.root))
    }

    /// Parses the text of a note without checking any signature; see [`Checkpoint::open`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), Some(""), None) =
            (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Text("expected three lines: origin, size, root"));
        };
        if origin.is_empty() {
            return Err(CheckpointError::Text("the origin is empty"));
        }
        let number: u64 = size.parse().map_err(|_| CheckpointError::Text("the size is not a number"))?;
        // Accept a single spelling only: no sign, no leading zeros.
        if number.to_string() != size {
            return Err(CheckpointError::Text("the size is not in canonical form"));
        }
        let root_hash = decode_hash(root).ok_or(CheckpointError::Text("the root is not a hash"))?;
        if encode_hash(&root_hash) != root {
            return Err(CheckpointError::Text("the root is not in canonical form"));
        }
        if number == 0 && root_hash != empty_root() {
            return Err(CheckpointError::Text("the size is 0, but the root is not that of an empty log"));
        }
        Ok(Self { origin: origin.to_owned(), size: number, root: root_hash })
    }

    /// Signs the checkpoint with the key of the log, whose name must be the origin.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, CheckpointError> {
        self.check_origin(key.public().name())?;
        let note = Note::unsigned(self.to_text())?;
        let signature = key.sign(note.text());
        Ok(note.with(signature))
    }

    /// Returns the checkpoint in a note, if `key` signed the note and the name of `key` is the checkpoint's origin.
    pub fn open(note: &Note, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        note.verify(key)?;
        let checkpoint = Self::parse(note.text())?;
        checkpoint.check_origin(key.name())?;
        Ok(checkpoint)
    }

    fn check_origin(&self, expected: &str) -> Result<(), CheckpointError> {
        if self.origin == expected {
            return Ok(());
        }
        Err(CheckpointError::Origin { found: self.origin.clone(), expected: expected.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{KeyKind, SigningSeed};

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "example/mx1/07".to_owned(), size: 3, root: [0xab; 32] }
    }

    fn key(name: &str) -> SigningKey {
        SigningSeed::from_bytes([7; 32]).named(name, KeyKind::Log).expect("a key")
    }

    /// The golden note of docs/format.md.
    #[test]
    fn a_signed_checkpoint_reads_back() {
        let note = checkpoint().sign(&key("example/mx1/07")).expect("a note");
        assert_eq!(note.text(), "example/mx1/07\n3\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n");
        assert_eq!(Checkpoint::open(&note, key("example/mx1/07").public()), Ok(checkpoint()));
    }

    #[test]
    fn another_logs_checkpoint_does_not_count() {
        assert!(checkpoint().sign(&key("example/mx2/07")).is_err());
        let foreign = Note::unsigned(checkpoint().to_text()).expect("a text");
        let other = key("example/mx2/07");
        let signature = other.sign(foreign.text());
        assert!(matches!(
            Checkpoint::open(&foreign.with(signature), other.public()),
            Err(CheckpointError::Origin { .. })
        ));
    }

    #[test]
    fn only_one_spelling_is_read() {
        let good = checkpoint().to_text();
        assert_eq!(Checkpoint::parse(&good), Ok(checkpoint()));
        for bad in [
            good.replace("\n3\n", "\n03\n"),
            good.replace("\n3\n", "\n+3\n"),
            good.replace("\n3\n", "\n-3\n"),
            good.replace("\n3\n", "\n0\n"),
            good.replace("q6s=", "q6t="),
            good.replace("q6s=", "q6s"),
            format!("{good}extension\n"),
            good.replace("example/mx1/07", ""),
            good.trim_end().to_owned(),
        ] {
            assert!(Checkpoint::parse(&bad).is_err(), "{bad:?}");
        }
    }
}

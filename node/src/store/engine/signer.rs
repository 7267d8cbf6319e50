//! Signs checkpoints of this log. A checkpoint covers only committed rows, is signed at most once a second, is stored before it
//! leaves the process, and never covers fewer rows than were signed before.

use std::ops::Range;
use std::time::{Duration, Instant};

use piperoll_format::checkpoint::{Checkpoint, CheckpointError};
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{Hash, TreeReader};
use piperoll_format::note::{KeyKind, Note, SigningKey};
use rusqlite::{Connection, OptionalExtension as _};

use super::integrator::IntegratorStopped;
use crate::store::table::keys::LogKeys;
use crate::store::table::log_dir::LogDir;
use crate::store::table::tiles::{StoredTiles, TreeError};

/// Minimum interval between two signatures while rows are being added; the checkpoint that a client gets is at most this old.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// Selects one of the two stored notes that every log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredNote {
    /// The newest note signed by this node.
    Signed,
    /// The newest note that a witness cosigned and returned.
    Witnessed,
}

impl StoredNote {
    pub(in crate::store) fn word(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Witnessed => "witnessed",
        }
    }
}

/// A checkpoint and the note that contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    pub checkpoint: Checkpoint,
    pub note: Note,
}

/// Reason why no checkpoint could be produced or accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    #[error("cannot sign a checkpoint: {0}")]
    Refused(String),
    #[error("invalid checkpoint: this node never signed a checkpoint of {0} rows")]
    NeverSigned(u64),
    #[error("invalid checkpoint: {0}")]
    Note(#[from] CheckpointError),
    #[error("cannot sign a checkpoint: {0}")]
    Tree(#[from] IntegratorStopped),
    #[error("the checkpoint could not be stored: {0}")]
    Store(String),
    #[error(
        "the checkpoint is not cosigned by any witness that this node knows; copy the file `witnesses` again from this node's folder in the cluster directory"
    )]
    Uncosigned,
    #[error("log.checkpoint could not be read: {0}")]
    Read(String),
}

/// Checkpoint signer, owned by the writer thread alone.
pub(in crate::store) struct Signer {
    key: SigningKey,
    /// Successor of `key`; during a key rotation both keys sign.
    next: Option<SigningKey>,
    newest: Option<SignedCheckpoint>,
    signed_at: Option<Instant>,
    damaged: Vec<Damaged>,
}

/// Location of a stored note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum NoteCopy {
    Database,
    /// `log.checkpoint`.
    File,
    /// The cosigned note in the database.
    Witnessed,
}

/// A copy of a note that can no longer be read.
#[derive(Debug, Clone)]
pub(in crate::store) struct Damaged {
    pub(in crate::store) place: NoteCopy,
    error: String,
}

impl Damaged {
    pub(in crate::store) fn describe(&self) -> String {
        let place = match self.place {
            NoteCopy::Database => "the checkpoint in log.db",
            NoteCopy::File => "the file log.checkpoint",
            NoteCopy::Witnessed => "the cosigned checkpoint in log.db",
        };
        format!("{place} is damaged: {}", self.error)
    }
}

/// Reads a note from the database without checking it.
pub(in crate::store) fn kept(conn: &Connection, kept: StoredNote) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT note FROM checkpoints WHERE kind = ?1", [kept.word()], |row| row.get(0)).optional()
}

fn keep(conn: &Connection, which: StoredNote, signed: &SignedCheckpoint) -> rusqlite::Result<()> {
    keep_as(conn, which.word(), signed)
}

fn keep_as(conn: &Connection, kind: &str, signed: &SignedCheckpoint) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT INTO checkpoints (kind, size, note) VALUES (?1, ?2, ?3)
         ON CONFLICT (kind) DO UPDATE SET size = excluded.size, note = excluded.note",
        (kind, signed.checkpoint.size, signed.note.to_string()),
    )
    .map(|_| ())
}

impl Signer {
    /// Reads the notes that were signed earlier, from the database and from the file next to it. A copy may be missing, damaged
    /// or old; the newest readable copy is used. Fails if notes exist and none can be read, because then the number of signed
    /// rows is unknown.
    pub(in crate::store) fn open(
        conn: &Connection,
        dir: &LogDir,
        key: SigningKey,
        next: Option<SigningKey>,
    ) -> Result<Self, CheckpointFault> {
        let stored = kept(conn, StoredNote::Signed).map_err(|e| CheckpointFault::Store(e.to_string()))?;
        let beside = dir.read_checkpoint().map_err(|e| CheckpointFault::Read(e.to_string()))?;
        let mut newest: Option<SignedCheckpoint> = None;
        let mut damaged: Vec<Damaged> = Vec::new();
        // A note that a witness cosigned was signed by this node as well, and may still exist if the other two copies are lost.
        let witnessed = kept(conn, StoredNote::Witnessed).map_err(|e| CheckpointFault::Store(e.to_string()))?;
        let places = [
            (NoteCopy::Database, stored.map(String::into_bytes)),
            (NoteCopy::File, beside),
            (NoteCopy::Witnessed, witnessed.map(String::into_bytes)),
        ];
        for (place, bytes) in places.into_iter().filter_map(|(place, bytes)| Some((place, bytes?))) {
            let signed = match open_bytes(&bytes, &key) {
                Ok(signed) => signed,
                Err(error) => {
                    damaged.push(Damaged { place, error: error.to_string() });
                    continue;
                }
            };
            let conflict = newest.as_ref().is_some_and(|known| {
                known.checkpoint.size == signed.checkpoint.size && known.checkpoint.root != signed.checkpoint.root
            });
            if conflict {
                let size = signed.checkpoint.size;
                return Err(CheckpointFault::Refused(format!("two checkpoints of {size} rows have different roots")));
            }
            if newest.as_ref().is_none_or(|known| known.checkpoint.size < signed.checkpoint.size) {
                newest = Some(signed);
            }
        }
        match (&newest, damaged.first()) {
            (None, Some(first)) => Err(CheckpointFault::Refused(first.describe())),
            _ => Ok(Self { key, next, newest, signed_at: None, damaged }),
        }
    }

    /// Returns the copies of a note that could not be read although another copy could. The next signature rewrites the newest
    /// signed note in the database and in the file.
    pub(in crate::store) fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Compares the log with the newest signed checkpoint: every signed row must exist, unchanged.
    pub(in crate::store) fn check(&self, conn: &Connection, size: u64) -> Result<Result<(), String>, TreeError> {
        let Some(SignedCheckpoint { checkpoint, .. }) = &self.newest else { return Ok(Ok(())) };
        if checkpoint.size > size {
            return Ok(Err(format!(
                "{} rows were signed, but the log has only {size}: the end was cut off, or an older copy was put back",
                checkpoint.size
            )));
        }
        let root = TreeReader::new(StoredTiles(conn), size).root(checkpoint.size)?;
        Ok(if root == checkpoint.root {
            Ok(())
        } else {
            Err(format!("the first {} rows are not those that were signed", checkpoint.size))
        })
    }

    pub(in crate::store) fn newest(&self) -> Option<&SignedCheckpoint> {
        self.newest.as_ref()
    }

    /// Returns the newest checkpoint. Signs a new one if rows were added since the last one, and if the last one is old enough
    /// or `at_once` is set. `size` is the number of committed rows, and `root` computes the root over them.
    pub(in crate::store) fn sign(
        &mut self,
        conn: &Connection,
        dir: &LogDir,
        size: u64,
        root: impl FnOnce() -> Result<Hash, IntegratorStopped>,
        at_once: bool,
    ) -> Result<SignedCheckpoint, CheckpointFault> {
        if let Some(newest) = &self.newest {
            if size < newest.checkpoint.size {
                let then = newest.checkpoint.size;
                return Err(CheckpointFault::Refused(format!(
                    "the log has {size} rows, but {then} rows were already signed"
                )));
            }
            // During a key rotation, the new key signs the existing rows as well, even if no rows are added.
            let lacking = self.next.as_ref().is_some_and(|next| newest.note.verify(next.public()).is_err());
            let young = self.signed_at.is_some_and(|at| at.elapsed() < SIGN_INTERVAL);
            let lacking = lacking || !self.damaged.is_empty();
            if (size == newest.checkpoint.size && !lacking) || (young && !at_once) {
                return Ok(newest.clone());
            }
        }
        let origin = self.key.public().name().to_owned();
        let checkpoint = Checkpoint { origin, size, root: root()? };
        let mut note = checkpoint.sign(&self.key)?;
        if let Some(next) = &self.next {
            let signature = next.sign(note.text());
            note = note.with(signature);
        }
        let signed = SignedCheckpoint { checkpoint, note };
        // Store in the database first: the file next to it is then never newer than the database, unless an older database was
        // restored. A crash between the two writes leaves an older file, which covers fewer rows but is not wrong.
        keep(conn, StoredNote::Signed, &signed).map_err(|e| CheckpointFault::Store(e.to_string()))?;
        dir.write_checkpoint(&signed.note.to_string()).map_err(|e| CheckpointFault::Store(e.to_string()))?;
        self.signed_at = Some(Instant::now());
        self.damaged.clear();
        self.newest = Some(signed.clone());
        Ok(signed)
    }

    /// Stores a note that a witness cosigned. It must be a note of this node, and must not cover more rows than this node has
    /// signed.
    pub(in crate::store) fn keep_cosigned(&self, conn: &Connection, text: &str) -> Result<u64, CheckpointFault> {
        let cosigned = open_note(text, &self.key)?;
        let size = cosigned.checkpoint.size;
        if self.newest.as_ref().is_none_or(|newest| newest.checkpoint.size < size) {
            return Err(CheckpointFault::NeverSigned(size));
        }
        let before = kept(conn, StoredNote::Witnessed).map_err(|e| CheckpointFault::Store(e.to_string()))?;
        let older = before.and_then(|text| open_note(&text, &self.key).ok()).is_some_and(|b| b.checkpoint.size > size);
        if !older {
            keep(conn, StoredNote::Witnessed, &cosigned).map_err(|e| CheckpointFault::Store(e.to_string()))?;
        }
        Ok(size)
    }

    /// Returns the number of rows that a witness has seen, as far as this node knows.
    pub(in crate::store) fn witnessed_size(&self, conn: &Connection) -> rusqlite::Result<Option<u64>> {
        let note = kept(conn, StoredNote::Witnessed)?;
        Ok(note.and_then(|text| open_note(&text, &self.key).ok()).map(|cosigned| cosigned.checkpoint.size))
    }
}

/// Kind of the stored note with the archive's cosignature.
const MIRRORED: &str = "mirrored";

/// The rows that the current log has.
pub(in crate::store) struct CurrentRows {
    pub(in crate::store) generation: Generation,
    /// From the log start to the end of the log.
    pub(in crate::store) rows: Range<u64>,
}

/// Stores a note with the cosignature of the cluster's archive (C2SP tlog-mirror). The note of the current log replaces a smaller one; for
/// a log that the current one replaced, it is stored under the generation of that log.
pub(in crate::store) fn keep_mirrored(
    conn: &Connection,
    keys: &LogKeys,
    current: &CurrentRows,
    text: &str,
    archived_from: u64,
) -> Result<u64, CheckpointFault> {
    let refused = |message: String| CheckpointFault::Refused(message);
    let note = Note::parse(text).map_err(CheckpointError::from)?;
    let origin = note.text().lines().next().unwrap_or_default();
    let generation = origin.rsplit('/').next().and_then(|text| text.parse::<Generation>().ok());
    let generation = generation.ok_or_else(|| refused(format!("{origin:?} is not the origin of a log")))?;
    let opened = open_mirrored(keys, generation, text)?;
    let is_current = generation == current.generation;
    if is_current {
        let (start, rows) = (current.rows.start, current.rows.end);
        if archived_from > start {
            return Err(refused(format!("rows {start} to {} are not in the archive", archived_from - 1)));
        }
        // After the log was restored from a copy, the archive may have rows of the log that it was copied from.
        let Checkpoint { size, root, .. } = &opened.checkpoint;
        let own = (*size <= rows).then(|| TreeReader::new(StoredTiles(conn), rows).root(*size));
        let is_own = own.is_some_and(|own| own.is_ok_and(|own| own == *root));
        if !is_own {
            return Err(refused(format!("its {size} rows are not those of this log")));
        }
    }
    let store = |error: rusqlite::Error| CheckpointFault::Store(error.to_string());
    let known = mirrored_size(conn, keys, generation, is_current).map_err(store)?;
    if known < opened.checkpoint.size {
        let kind = mirrored_kind(generation, is_current);
        keep_as(conn, &kind, &opened).map_err(store)?;
    }
    Ok(opened.checkpoint.size)
}

/// Number of rows of a log that the cluster's archive has, by a note that this node and the archive signed; 0 if there is none.
pub(in crate::store) fn mirrored_size(
    conn: &Connection,
    keys: &LogKeys,
    generation: Generation,
    is_current: bool,
) -> rusqlite::Result<u64> {
    let kind = mirrored_kind(generation, is_current);
    let note: Option<String> =
        conn.query_row("SELECT note FROM checkpoints WHERE kind = ?1", [kind], |row| row.get(0)).optional()?;
    // The database is not trusted with this: a note that cannot be verified protects the rows as if there were none.
    let opened = note.and_then(|note| open_mirrored(keys, generation, &note).ok());
    Ok(opened.map_or(0, |opened| opened.checkpoint.size))
}

fn mirrored_kind(generation: Generation, is_current: bool) -> String {
    match is_current {
        true => MIRRORED.to_owned(),
        false => format!("{MIRRORED}:{generation}"),
    }
}

fn open_mirrored(keys: &LogKeys, generation: Generation, text: &str) -> Result<SignedCheckpoint, CheckpointFault> {
    let refused = |message: &str| CheckpointFault::Refused(message.to_owned());
    let mirror = keys.archive.as_ref().ok_or_else(|| refused("this node has no retention.archive_key"))?;
    let key = keys.checkpoint.named(&keys.origin(generation), KeyKind::Log);
    let opened = open_note(text, &key.ok_or_else(|| refused("the origin is not a valid key name"))?)?;
    let is_mirrored = opened.note.verify(mirror).is_ok();
    if is_mirrored { Ok(opened) } else { Err(refused("it is not cosigned by the archive of retention.archive_key")) }
}

fn open_bytes(bytes: &[u8], key: &SigningKey) -> Result<SignedCheckpoint, CheckpointFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| CheckpointFault::Read("it is not text".to_owned()))?;
    open_note(text, key)
}

pub(in crate::store) fn open_note(text: &str, key: &SigningKey) -> Result<SignedCheckpoint, CheckpointFault> {
    let note = Note::parse(text).map_err(CheckpointError::from)?;
    let checkpoint = Checkpoint::open(&note, key.public())?;
    Ok(SignedCheckpoint { checkpoint, note })
}

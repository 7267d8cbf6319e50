//! Steps: the rows that one round of the writer added to the archive. The step's object is the commit; rows that no step names are not part
//! of the archive.

use piperoll_format::ids::NodeId;
use piperoll_format::note::{NoteError, SigningKey, VerifyingKey};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;
use serde::{Deserialize, Serialize};

use super::names;
use super::signed::{Digest, RecordError, read_signed, write_signed};
use crate::row::{Day, LogId};

const HEADING: &str = "piperoll archive step v1";
/// Maximum size of a step: about a thousand logs and ten thousand runs.
pub const STEP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Effect of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Adds rows.
    Add,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Counts from 1.
    pub number: u64,
    /// Digest of the previous step; for step 1, of the object `archive`.
    pub previous: Digest,
    pub kind: StepKind,
    /// Time at which the step was planned.
    pub created: Timestamp,
    /// Host and instance of the writer.
    pub writer: String,
    pub logs: Vec<LogRange>,
    pub files: Vec<FileRecord>,
    /// The step's hashes ([`super::Trees`]).
    pub tree: ObjectRecord,
    /// Nodes whose rows were due and are not in this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// Rows of one log that a step adds: `from_seq..to_seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRange {
    pub log: LogId,
    pub from_seq: u64,
    pub to_seq: u64,
    /// Oldest and newest time of the rows.
    pub oldest: Timestamp,
    pub newest: Timestamp,
    /// Era of the last row.
    pub era: u32,
    /// Epochs of the MAC key that begin in the range or apply at its beginning.
    pub epochs: Vec<EpochSpan>,
    /// Checkpoint of the log, with the log's signature and the cosignature of a witness. It covers all rows of the range, and more
    /// if the range ends before it.
    pub checkpoint: String,
}

/// An object with its size and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRecord {
    pub name: String,
    pub bytes: u64,
    pub sha256: Digest,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    pub name: String,
    pub bytes: u64,
    pub sha256: Digest,
    /// Offset of the tail: page index and footer. The footer has the digests of all column chunks and bloom filters, so a part of
    /// the file can be verified without reading all of it.
    pub tail_offset: u64,
    pub tail_sha256: Digest,
    pub rows: u64,
    /// The rows in the order of the file.
    pub runs: Vec<Run>,
}

/// Consecutive rows of one log, of one day and one era.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Index into the step's `logs`.
    pub log: usize,
    pub from_seq: u64,
    pub to_seq: u64,
    pub era: u32,
    /// Times of the first and of the last row.
    pub first: Timestamp,
    pub last: Timestamp,
}

/// A node whose rows were due but could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    pub node_id: NodeId,
    pub reason: String,
}

impl Step {
    /// Serializes and signs the step.
    ///
    /// # Errors
    /// Fails if the content cannot be a note.
    pub fn to_bytes(&self, key: &SigningKey) -> Result<Vec<u8>, NoteError> {
        write_signed(HEADING, self, key)
    }

    /// Reads step `number`, and checks what can be checked without other objects.
    ///
    /// # Errors
    /// Fails if the bytes are not this step, signed by `key`, or if its parts contradict each other.
    pub fn read(number: u64, bytes: &[u8], key: &VerifyingKey) -> Result<Self, RecordError> {
        let name = names::step(number);
        let step: Self = read_signed(&name, HEADING, bytes, key, STEP_BYTES_MAX)?;
        step.check(number).map_err(|reason| RecordError::form(&name, reason))?;
        Ok(step)
    }

    /// Number of rows that the step adds.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Every row of the logs' ranges must be in exactly one run.
    fn check(&self, number: u64) -> Result<(), String> {
        if self.number != number {
            return Err(format!("it is step {}", self.number));
        }
        if self.tree.name != names::tree(number, &self.tree.sha256) {
            return Err("its hashes have another name".to_owned());
        }
        if !self.logs.is_sorted_by(|a, b| a.log < b.log) {
            return Err("its logs are not sorted, or a log occurs twice".to_owned());
        }
        let mut next: Vec<u64> = self.logs.iter().map(|range| range.from_seq).collect();
        let mut runs: Vec<&Run> = Vec::new();
        for file in &self.files {
            let mut rows = 0;
            let day = file.runs.first().map(|run| Day::of(run.first)).ok_or("a file has no rows")?;
            let in_day = |run: &Run| Day::of(run.first) == day && Day::of(run.last) == day && run.first <= run.last;
            if !file.name.starts_with(&format!("{}/day={day}/", names::DATA)) || !file.runs.iter().all(in_day) {
                return Err(format!("{} has rows of another day", file.name));
            }
            for run in &file.runs {
                let range = self.logs.get(run.log).ok_or("a run names an unknown log")?;
                if run.from_seq >= run.to_seq || run.from_seq < range.from_seq || run.to_seq > range.to_seq {
                    return Err(format!("rows {}..{} of {} are not in its range", run.from_seq, run.to_seq, range.log));
                }
                rows += run.to_seq - run.from_seq;
                runs.push(run);
            }
            if rows != file.rows {
                return Err(format!("{} has {} rows, but its runs have {rows}", file.name, file.rows));
            }
        }
        runs.sort_by_key(|run| (run.log, run.from_seq));
        for (index, range) in self.logs.iter().enumerate() {
            let own = || runs.iter().filter(|run| run.log == index);
            let (oldest, newest) = (own().map(|run| run.first).min(), own().map(|run| run.last).max());
            let era = own().next_back().map(|run| run.era);
            if (oldest, newest, era) != (Some(range.oldest), Some(range.newest), Some(range.era)) {
                return Err(format!("times or era of {} are not those of its runs", range.log));
            }
        }
        for run in runs {
            if next[run.log] != run.from_seq {
                return Err(format!("rows of {} are missing or occur twice", self.logs[run.log].log));
            }
            next[run.log] = run.to_seq;
        }
        match self.logs.iter().zip(next).find(|(range, next)| range.to_seq != *next || range.from_seq >= range.to_seq) {
            Some((range, _)) => Err(format!("rows of {} are missing", range.log)),
            None => Ok(()),
        }
    }
}

//! Steps: the rows that one round of the writer added to the archive, replaced, or removed. The step's object is the commit; rows that no step
//! names are not part of the archive.

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Adds rows.
    #[default]
    Add,
    /// Replaces files by ones without the content of erased rows.
    Replace,
    /// Removes files whose rows were kept for as long as required.
    Expire,
}

impl StepKind {
    /// Whether this is the kind that records without a kind have.
    pub(super) fn is_add(&self) -> bool {
        *self == Self::Add
    }
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
    /// Files that this step replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replacement>,
    /// Names of the files that this step removes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<String>,
    /// For each log with removed rows, the first row that the archive still has. The step's hashes have the compact range before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<ArchiveStart>,
}

/// A file that takes the place of another one, with the same rows, of which some have lost their content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// The file that is no longer part of the archive.
    pub name: String,
    /// Logs of the file, to which the runs and `erased` refer by index.
    pub logs: Vec<LogId>,
    pub file: FileRecord,
    /// The rows that lost their content with this step.
    pub erased: Vec<RowOfFile>,
}

/// A row of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowOfFile {
    /// Index into the logs of the file.
    pub log: usize,
    pub seq: u64,
}

/// First row of a log that the archive still has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveStart {
    pub log: LogId,
    pub first_seq: u64,
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

    /// Checks that the bytes under the name of a step are a step of the archive, perhaps one of another number.
    ///
    /// # Errors
    /// Fails if the bytes are not signed by `key`, or are not a step.
    pub fn check_signature(number: u64, bytes: &[u8], key: &VerifyingKey) -> Result<(), RecordError> {
        read_signed::<Self>(&names::step(number), HEADING, bytes, key, STEP_BYTES_MAX).map(|_| ())
    }

    /// Number of rows that the step adds.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Files that the step creates, also those that take the place of others.
    pub fn new_files(&self) -> impl Iterator<Item = &FileRecord> {
        self.files.iter().chain(self.replaced.iter().map(|replaced| &replaced.file))
    }

    /// Names of the files that are no longer part of the archive.
    pub fn removed_files(&self) -> impl Iterator<Item = &String> {
        self.replaced.iter().map(|replaced| &replaced.name).chain(&self.expired)
    }

    fn check(&self, number: u64) -> Result<(), String> {
        if self.number != number {
            return Err(format!("it is step {}", self.number));
        }
        if self.tree.name != names::tree(number, &self.tree.sha256) {
            return Err("its hashes have another name".to_owned());
        }
        let is_empty = |adds: bool, replaces: bool, expires: bool| {
            (adds || self.logs.is_empty() && self.files.is_empty())
                && (replaces || self.replaced.is_empty())
                && (expires || self.expired.is_empty() && self.starts.is_empty())
        };
        let is_of_kind = match self.kind {
            StepKind::Add => is_empty(true, false, false),
            StepKind::Replace => is_empty(false, true, false),
            StepKind::Expire => is_empty(false, false, true),
        };
        if !is_of_kind {
            return Err("it has parts of a step of another kind".to_owned());
        }
        let mut removed: Vec<&String> = self.removed_files().collect();
        removed.sort_unstable();
        if let Some(pair) = removed.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("it removes {} twice", pair[0]));
        }
        if !self.starts.is_sorted_by(|a, b| a.log < b.log) {
            return Err("its log starts are not sorted, or a log occurs twice".to_owned());
        }
        self.replaced.iter().try_for_each(Replacement::check)?;
        self.check_ranges()
    }

    /// Every row of the logs' ranges must be in exactly one run.
    fn check_ranges(&self) -> Result<(), String> {
        if !self.logs.is_sorted_by(|a, b| a.log < b.log) {
            return Err("its logs are not sorted, or a log occurs twice".to_owned());
        }
        let mut next: Vec<u64> = self.logs.iter().map(|range| range.from_seq).collect();
        let mut runs: Vec<&Run> = Vec::new();
        for file in &self.files {
            file.check(self.logs.len())?;
            for run in &file.runs {
                let range = self.logs.get(run.log).ok_or("a run names an unknown log")?;
                if run.from_seq < range.from_seq || run.to_seq > range.to_seq {
                    return Err(format!("rows {}..{} of {} are not in its range", run.from_seq, run.to_seq, range.log));
                }
                runs.push(run);
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

impl FileRecord {
    /// The runs must be those of one day and of `logs` logs, and have all rows of the file.
    fn check(&self, logs: usize) -> Result<(), String> {
        let day = self.runs.first().map(|run| Day::of(run.first)).ok_or("a file has no rows")?;
        let in_day = |run: &Run| Day::of(run.first) == day && Day::of(run.last) == day && run.first <= run.last;
        if !self.name.starts_with(&format!("{}/day={day}/", names::DATA)) || !self.runs.iter().all(in_day) {
            return Err(format!("{} has rows of another day", self.name));
        }
        if let Some(run) = self.runs.iter().find(|run| run.from_seq >= run.to_seq || run.log >= logs) {
            return Err(format!("{}: rows {}..{} are not those of a log", self.name, run.from_seq, run.to_seq));
        }
        let rows: u64 = self.runs.iter().map(|run| run.to_seq - run.from_seq).sum();
        if rows == self.rows {
            return Ok(());
        }
        Err(format!("{} has {} rows, but its runs have {rows}", self.name, self.rows))
    }

    /// Whether the file has a row.
    pub fn has(&self, row: RowOfFile) -> bool {
        self.runs.iter().any(|run| run.log == row.log && (run.from_seq..run.to_seq).contains(&row.seq))
    }

    /// Whether another file has the same rows, apart from their content.
    pub(crate) fn has_rows_of(&self, other: &Self) -> bool {
        (self.rows, &self.runs) == (other.rows, &other.runs)
    }
}

impl Replacement {
    fn check(&self) -> Result<(), String> {
        self.file.check(self.logs.len())?;
        if self.file.name == self.name {
            return Err(format!("it replaces {} by itself", self.name));
        }
        if self.erased.is_empty() || !self.erased.iter().all(|row| self.file.has(*row)) {
            return Err(format!("it erases no rows of {}, or rows of another file", self.name));
        }
        Ok(())
    }
}

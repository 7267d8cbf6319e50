//! Remembers in a local file what a verification has found in order, so that it can be continued after an interruption.
//!
//! The first line is a JSON object with the archive's key and the time at which the verification began. Each further line is a JSON object about one file:
//! the digest of the step that added its rows, its name and digest, and the results of reading it. A result counts only for a file whose step and
//! digest are the same now. A program that can change the local file can claim that a file was verified.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use piperoll_evidence::bundle::ArchiveTrust;
use piperoll_format::ids::NodeId;
use piperoll_format::merkle::Cover;
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::file_check::{Checked, ErasedRow, MentionedStep};
use crate::record::{Digest, FileRecord};
use crate::row::{Day, LogId};

const FORMAT: &str = "piperoll archive verification v1";
/// Maximum bytes of a line. A file of a thousand nodes has about a megabyte of hashes.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum age of a verification that is continued, in microseconds: 30 days. What was read earlier says little about the objects now.
const AGE_MICROS_MAX: i64 = 30 * 86_400_000_000;
/// Permissions of others, which the file must not have.
const OTHERS: u32 = 0o077;

/// Reasons why a verification cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error("cannot use {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is not the state of a verification of this archive: {reason}. Delete it to begin from the start", path.display())]
    Form { path: PathBuf, reason: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heading {
    format: String,
    /// Name and key of the archive's steps, as in a trust file.
    archive: String,
    began: Timestamp,
}

/// Results of reading one file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    step: Digest,
    file: String,
    sha256: Digest,
    rows: u64,
    /// Index of the log, first row, end, and hashes.
    covers: Vec<(usize, u64, u64, Vec<Digest>)>,
    erased: Vec<(LogId, Erased)>,
    declared: Vec<(LogId, Erased)>,
    steps: Vec<(NodeId, MentionedStep)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Erased {
    seq: u64,
    leaf: Digest,
    era: u32,
    timestamp: Timestamp,
}

/// State of a verification, in a local file.
#[derive(Debug)]
pub struct Resume {
    path: PathBuf,
    file: File,
    began: Timestamp,
    /// Place and length of the line about a file, by step and digest of the file.
    lines: HashMap<(Digest, Digest), (u64, usize)>,
    bytes: u64,
    /// Why the file could not be written.
    problem: Option<String>,
}

impl Resume {
    /// Opens the state at `path`, or begins a new one.
    ///
    /// # Errors
    /// Fails if the file cannot be used, is open to others, or belongs to another archive or to a verification of more than 30 days ago.
    pub fn open(path: &Path, archive: &ArchiveTrust, now: Timestamp) -> Result<Self, ResumeError> {
        let io = |error| ResumeError::Io { path: path.to_owned(), error };
        let form = |reason: String| ResumeError::Form { path: path.to_owned(), reason };
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).clone();
        let file = options.open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() || metadata.mode() & OTHERS != 0 {
            return Err(form("it must be a file that only its owner can use (chmod 600)".to_owned()));
        }
        // The lock ends with the process, so an interrupted verification leaves none.
        file.try_lock().map_err(|_| form("another verification uses it".to_owned()))?;
        let mut this = Self { path: path.to_owned(), file, began: now, lines: HashMap::new(), bytes: 0, problem: None };
        if metadata.len() == 0 {
            let heading = Heading { format: FORMAT.to_owned(), archive: archive.steps.to_string(), began: now };
            this.write(&heading).map_err(io)?;
            return Ok(this);
        }
        let mut reader = BufReader::new(this.file.try_clone().map_err(io)?);
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line).map_err(io)? {
            if this.bytes == 0 {
                let heading: Heading = serde_json::from_slice(&line).map_err(|error| form(error.to_string()))?;
                if (heading.format.as_str(), heading.archive) != (FORMAT, archive.steps.to_string()) {
                    return Err(form("it is about another archive, or has another format".to_owned()));
                }
                let age = now.micros().saturating_sub(heading.began.micros());
                if !(0..=AGE_MICROS_MAX).contains(&age) {
                    return Err(form(format!("the verification began at {}", heading.began)));
                }
                this.began = heading.began;
            } else {
                let known: Line = serde_json::from_slice(&line).map_err(|error| form(error.to_string()))?;
                this.lines.insert((known.step, known.sha256), (this.bytes, line.len()));
            }
            this.bytes += line.len() as u64;
        }
        // What an interrupted write left is not a line.
        this.file.set_len(this.bytes).map_err(io)?;
        if this.bytes == 0 {
            return Err(form("its first line is not complete".to_owned()));
        }
        Ok(this)
    }

    /// Time at which the verification began.
    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// Why the state could not be written, if it could not.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Removes the state after the verification was completed.
    ///
    /// # Errors
    /// Fails if the file cannot be removed.
    pub fn finish(self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Results of a file that was read earlier.
    pub(super) fn find(&self, step: &Digest, file: &FileRecord) -> Option<Checked> {
        let (at, length) = self.lines.get(&(*step, file.sha256))?;
        let mut bytes = vec![0; *length];
        self.file.read_exact_at(&mut bytes, *at).ok()?;
        let line: Line = serde_json::from_slice(&bytes).ok()?;
        if (line.step, line.sha256, &line.file, line.rows) != (*step, file.sha256, &file.name, file.rows) {
            return None;
        }
        let cover = |(log, from, to, hashes): (usize, u64, u64, Vec<Digest>)| {
            let hashes = hashes.into_iter().map(|hash| hash.0).collect();
            Some((log, Cover::new(from, to, hashes)?))
        };
        let covers: Vec<(usize, Cover)> = line.covers.into_iter().map(cover).collect::<Option<_>>()?;
        let found = joined(covers.iter().map(|(log, cover)| (*log, cover.from()..cover.to())));
        if found != joined(file.runs.iter().map(|run| (run.log, run.from_seq..run.to_seq))) {
            return None;
        }
        Some(Checked {
            covers,
            tiles: Vec::new(),
            rows: line.rows,
            day: file.runs.first().map(|run| Day::of(run.first)),
            erased: line.erased.into_iter().map(Erased::read).collect(),
            declared: line.declared.into_iter().map(Erased::read).collect(),
            steps: line.steps,
        })
    }

    /// Remembers the results of a file in which nothing was found.
    pub(super) fn keep(&mut self, step: &Digest, file: &FileRecord, checked: &Checked) {
        let cover = |(log, cover): &(usize, Cover)| {
            (*log, cover.from(), cover.to(), cover.hashes().iter().map(|hash| Digest(*hash)).collect())
        };
        let line = Line {
            step: *step,
            file: file.name.clone(),
            sha256: file.sha256,
            rows: checked.rows,
            covers: checked.covers.iter().map(cover).collect(),
            erased: checked.erased.iter().map(Erased::of).collect(),
            declared: checked.declared.iter().map(Erased::of).collect(),
            steps: checked.steps.clone(),
        };
        if self.problem.is_none() {
            self.problem = self.write(&line).err().map(|error| error.to_string());
        }
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        if bytes.len() > LINE_BYTES_MAX {
            // This file is read again.
            return Ok(());
        }
        self.file.write_all(&bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Erased {
    fn of((log, row): &(LogId, ErasedRow)) -> (LogId, Self) {
        (log.clone(), Self { seq: row.seq, leaf: Digest(row.leaf), era: row.era, timestamp: row.timestamp })
    }

    fn read((log, row): (LogId, Self)) -> (LogId, ErasedRow) {
        (log, ErasedRow { seq: row.seq, leaf: row.leaf.0, era: row.era, timestamp: row.timestamp })
    }
}

/// Rows of each log, in ranges that do not touch each other.
fn joined(parts: impl Iterator<Item = (usize, Range<u64>)>) -> BTreeMap<usize, Vec<Range<u64>>> {
    let mut all: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
    for (log, rows) in parts {
        let of_log = all.entry(log).or_default();
        match of_log.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => of_log.push(rows),
        }
    }
    all
}

/// Reads the next complete line; false at the end.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limit = LINE_BYTES_MAX as u64 + 1;
    io::Read::take(reader, limit).read_until(b'\n', line)?;
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other("a line is too long"));
    }
    Ok(line.ends_with(b"\n"))
}

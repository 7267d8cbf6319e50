//! Verifies one file of rows against what its step says about it.

use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use memchr::memmem;
use piperoll_format::ids::NodeId;
use piperoll_format::merkle::{Cover, Hash};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;
use serde::{Deserialize, Serialize};

use crate::file::{DecodeError, OpenFile, Sum};
use crate::record::{Digest, FileRecord, LogRange, Run, digest_of, names};
use crate::row::{ArchivedRow, Content, Day, LogId};

/// Maximum number of erased rows, and of declarations of erasures, that a verification remembers.
pub(super) const ERASED_MAX: usize = 1_000_000;
/// Maximum number of row groups of a file that are decoded at the same time. The values of each may take 130 MiB.
const THREADS_MAX: usize = 4;
/// Action of the entries in which the writer records its steps.
const STEP_ACTION: &[u8] = b"\"action\":\"audit.archive_step\"";

/// Result of verifying the rows of one file.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Index of the log, and cover, of every part of a run that is in one row group.
    pub(super) covers: Vec<(usize, Cover)>,
    /// Full level-0 tiles within these parts: log, index, root.
    pub(super) tiles: Vec<(usize, u64, Hash)>,
    pub(super) rows: u64,
    pub(super) day: Option<Day>,
    /// Erased rows, and erasures that entries declare.
    pub(super) erased: Vec<(LogId, ErasedRow)>,
    pub(super) declared: Vec<(LogId, ErasedRow)>,
    /// Steps that entries mention, each with the node that recorded the entry.
    pub(super) steps: Vec<(NodeId, MentionedStep)>,
}

/// An erased row: position and leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErasedRow {
    pub(super) seq: u64,
    pub(super) leaf: Hash,
    pub(super) era: u32,
    pub(super) timestamp: Timestamp,
}

/// A step that an `audit.archive_step` entry mentions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MentionedStep {
    pub(super) archive: String,
    pub(super) step: u64,
    pub(super) sha256: Digest,
}

/// Verifies the bytes of a file. Returns a message if they are not what the step says.
pub(super) fn check(bytes: &Bytes, record: &FileRecord, logs: &[LogRange]) -> Result<Checked, String> {
    if bytes.len() as u64 != record.bytes {
        return Err(format!("it has {} bytes, but its step says {}", bytes.len(), record.bytes));
    }
    // Compare the digest before the bytes are parsed, so that only files of the archive's writer are.
    let found = digest_of(bytes);
    if found != record.sha256 {
        return Err(format!("its SHA-256 is {found}, but its step says {}", record.sha256));
    }
    let tail = usize::try_from(record.tail_offset).ok().and_then(|offset| bytes.get(offset..));
    if tail.map(digest_of) != Some(record.tail_sha256) {
        return Err("its tail does not match the digest in its step".to_owned());
    }
    check_rows(bytes, record, logs)
}

/// Checks the row groups of a file at the same time.
fn check_rows(bytes: &Bytes, record: &FileRecord, logs: &[LogRange]) -> Result<Checked, String> {
    let file = guarded(|| OpenFile::open(bytes).map_err(|error| error.to_string()))?;
    let groups = file.groups();
    let rows = groups.last().map_or(0, |last| last.end);
    let lengths = record.runs.iter().map(|run| run.to_seq.saturating_sub(run.from_seq));
    let expected = lengths.fold(0, u64::saturating_add);
    if rows != record.rows || rows != expected {
        return Err(format!("it has {rows} rows, but its step says {}", record.rows));
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(groups.len()).min(THREADS_MAX);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut checked = Vec::new();
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            let Some(rows) = groups.get(group) else { return checked };
            checked.push((group, guarded(|| check_group(&file, group, &parts(record, rows), logs))));
        }
    };
    let mut checked: Vec<_> = std::thread::scope(|scope| {
        // If the system refuses a thread, the others do its work; this one is there anyway.
        let start = |_| std::thread::Builder::new().name("verify".to_owned()).spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..threads).filter_map(start).collect();
        let own = work();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).chain(own).collect()
    });
    checked.sort_unstable_by_key(|(group, _)| *group);
    if checked.len() != groups.len() {
        return Err("its row groups could not be checked".to_owned());
    }
    let mut all = Checked::default();
    let mut sum = Sum::default();
    for (_, result) in checked {
        let (part, part_sum) = result?;
        sum.append(&part_sum);
        all.join(part)?;
    }
    let first = record.runs.first().and_then(|run| Some((&logs.get(run.log)?.log, run.from_seq)));
    let name = first.zip(all.day).map(|((log, seq), day)| names::data(day, log, seq, all.rows, &sum.finish()));
    if name.as_ref() != Some(&record.name) {
        return Err("its name is not that of its rows".to_owned());
    }
    Ok(all)
}

/// A decoder is complex; a panic in it must not stop the verification of the other files.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("it cannot be decoded".to_owned()))
}

/// Rows of a run that are in one row group.
struct Part<'a> {
    run: &'a Run,
    seqs: Range<u64>,
}

/// Parts of the runs that have the rows `rows` of the file.
fn parts<'a>(record: &'a FileRecord, rows: &Range<u64>) -> Vec<Part<'a>> {
    let mut begin: u64 = 0;
    let of_run = |run: &'a Run| {
        let first = begin;
        begin = begin.saturating_add(run.to_seq.saturating_sub(run.from_seq));
        let part = rows.start.max(first)..rows.end.min(begin);
        (part.start < part.end)
            .then(|| Part { run, seqs: run.from_seq + (part.start - first)..run.from_seq + (part.end - first) })
    };
    record.runs.iter().filter_map(of_run).collect()
}

/// Checks the rows of one row group. Returns its results, and the digest of its rows.
fn check_group(file: &OpenFile, group: usize, parts: &[Part<'_>], logs: &[LogRange]) -> Result<(Checked, Sum), String> {
    let mut checked = Checked::default();
    let mut sum = Sum::default();
    let mut parts = parts.iter();
    let mut current: Option<(&Part<'_>, Cover)> = None;
    let read = file.rows::<Refused>(group, |decoded| {
        let refuse = |message: String| Err(Refused(message));
        let (log, row) = (decoded.log, decoded.row);
        if let Some((part, cover)) = current.take_if(|(part, cover)| cover.to() == part.seqs.end) {
            checked.covers.push((part.run.log, cover));
        }
        let (part, cover) = match &mut current {
            Some(current) => current,
            None => {
                let Some(part) = parts.next() else { return refuse("it has more rows than its step says".to_owned()) };
                current.insert((part, Cover::at(part.seqs.start)))
            }
        };
        let run = part.run;
        let expected = logs.get(run.log).map(|range| &range.log);
        if expected != Some(&log) || row.seq != cover.to() || row.era != run.era {
            return refuse(format!("row {} of {log} is not the row that its step says", row.seq));
        }
        let is_other = |seq: u64, time| row.seq == seq && row.timestamp != time;
        if is_other(run.from_seq, run.first) || is_other(run.to_seq - 1, run.last) {
            return refuse(format!("row {} has another time than its step says", row.seq));
        }
        if checked.day.is_some_and(|known| known != row.day()) {
            return refuse(format!("row {} belongs to another day", row.seq));
        }
        checked.day = Some(row.day());
        checked.rows += 1;
        let leaf = row.leaf();
        let index = run.log;
        cover.push(leaf, |tile, root| checked.tiles.push((index, tile, root)));
        sum.add(&leaf, row.is_erased());
        note(&mut checked, &log, &row, leaf)
    });
    read.map_err(|refused| refused.0)?;
    if let Some((part, cover)) = current {
        if cover.to() != part.seqs.end {
            return Err(format!("rows {}..{} are missing", cover.to(), part.seqs.end));
        }
        checked.covers.push((part.run.log, cover));
    }
    if parts.next().is_some() {
        return Err("it has fewer rows than its step says".to_owned());
    }
    Ok((checked, sum))
}

impl Checked {
    /// Adds the results of the next row group.
    fn join(&mut self, next: Self) -> Result<(), String> {
        if self.day.is_some() && next.day.is_some() && self.day != next.day {
            return Err("its rows belong to different days".to_owned());
        }
        self.day = self.day.or(next.day);
        self.rows += next.rows;
        self.covers.extend(next.covers);
        self.tiles.extend(next.tiles);
        self.erased.extend(next.erased);
        self.declared.extend(next.declared);
        self.steps.extend(next.steps);
        if self.erased.len().max(self.declared.len()) > ERASED_MAX {
            return Err(format!("it has more than {ERASED_MAX} erasures"));
        }
        Ok(())
    }
}

/// Remembers erasures, and steps that the writer recorded.
fn note(checked: &mut Checked, log: &LogId, row: &ArchivedRow, leaf: Hash) -> Result<(), Refused> {
    match &row.content {
        Content::Erased { .. } => {
            let erased = ErasedRow { seq: row.seq, leaf, era: row.era, timestamp: row.timestamp };
            checked.erased.push((log.clone(), erased));
        }
        Content::Entry { body, .. } => {
            if let Some(Statement::Erased(said)) = Statement::read(body) {
                let said = ErasedRow { seq: said.seq, leaf: said.leaf, era: said.era, timestamp: said.timestamp };
                checked.declared.push((log.clone(), said));
            } else if memmem::find(body, STEP_ACTION).is_some() {
                let details = EntryView::parse(body).and_then(|view| view.details);
                let step = details.and_then(|details| serde_json::from_str(details.get()).ok());
                checked.steps.extend(step.map(|step| (log.node_id.clone(), step)));
            }
        }
    }
    if checked.erased.len().max(checked.declared.len()) > ERASED_MAX {
        return Err(Refused(format!("it has more than {ERASED_MAX} erasures")));
    }
    Ok(())
}

/// Message about a file that is not what its step says.
struct Refused(String);

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

//! Verifies one file of rows against what its step says about it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use piperoll_format::ids::NodeId;
use piperoll_format::merkle::{Cover, Hash};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;
use serde::Deserialize;

use crate::file::{DecodeError, Sum, decode};
use crate::record::{Digest, FileRecord, LogRange, Run, digest_of, names};
use crate::row::{ArchivedRow, Content, Day, LogId};

/// Maximum number of erased rows, and of declarations of erasures, that a verification remembers.
pub(super) const ERASED_MAX: usize = 1_000_000;
/// Action of the entries in which the writer records its steps.
const STEP_ACTION: &[u8] = b"\"action\":\"audit.archive_step\"";

/// Result of verifying the rows of one file.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// One cover for each run, in the order of the runs.
    pub(super) covers: Vec<Cover>,
    /// Full level-0 tiles within the runs: log, index, root.
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
    leaf: Hash,
    era: u32,
    timestamp: Timestamp,
}

/// A step that an `audit.archive_step` entry mentions.
#[derive(Debug, Clone, Deserialize)]
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
    // A decoder is complex; a panic in it must not stop the verification of the other files.
    catch_unwind(AssertUnwindSafe(|| check_rows(bytes, record, logs)))
        .unwrap_or_else(|_| Err("it cannot be decoded".to_owned()))
}

fn check_rows(bytes: &Bytes, record: &FileRecord, logs: &[LogRange]) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let mut sum = Sum::default();
    let mut runs = record.runs.iter();
    let mut current: Option<(&Run, Cover)> = None;
    let mut first_row: Option<(LogId, u64)> = None;
    decode::decode::<Refused>(bytes, |decoded| {
        let refuse = |message: String| Err(Refused(message));
        let (log, row) = (decoded.log, decoded.row);
        first_row.get_or_insert_with(|| (log.clone(), row.seq));
        if let Some((_, cover)) = current.take_if(|(run, cover)| cover.to() == run.to_seq) {
            checked.covers.push(cover);
        }
        let (run, cover) = match &mut current {
            Some(current) => current,
            None => {
                let Some(run) = runs.next() else { return refuse("it has more rows than its step says".to_owned()) };
                if row.timestamp != run.first {
                    return refuse(format!("row {} has another time than its step says", row.seq));
                }
                current.insert((run, Cover::at(run.from_seq)))
            }
        };
        let expected = logs.get(run.log).map(|range| &range.log);
        if expected != Some(&log) || row.seq != cover.to() || row.era != run.era {
            return refuse(format!("row {} of {log} is not the row that its step says", row.seq));
        }
        if row.seq + 1 == run.to_seq && row.timestamp != run.last {
            return refuse(format!("row {} has another time than its step says", row.seq));
        }
        let day = row.day();
        if checked.day.is_some_and(|known| known != day) {
            return refuse(format!("row {} belongs to another day", row.seq));
        }
        checked.day = Some(day);
        checked.rows += 1;
        let leaf = row.leaf();
        let index = run.log;
        cover.push(leaf, |tile, root| checked.tiles.push((index, tile, root)));
        sum.add(&row);
        note(&mut checked, &log, &row, leaf)
    })
    .map_err(|refused| refused.0)?;
    if let Some((run, cover)) = current {
        if cover.to() != run.to_seq {
            return Err(format!("rows {}..{} are missing", cover.to(), run.to_seq));
        }
        checked.covers.push(cover);
    }
    if runs.next().is_some() || checked.rows != record.rows {
        return Err(format!("it has {} rows, but its step says {}", checked.rows, record.rows));
    }
    let name =
        first_row.zip(checked.day).map(|((log, seq), day)| names::data(day, &log, seq, checked.rows, &sum.finish()));
    if name.as_ref() != Some(&record.name) {
        return Err("its name is not that of its rows".to_owned());
    }
    Ok(checked)
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
            } else if body.windows(STEP_ACTION.len()).any(|part| part == STEP_ACTION) {
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

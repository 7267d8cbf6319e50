//! Reads the rows of one log for a step, and checks that they lead to the log's cosigned checkpoint.

use std::path::Path;

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::merkle::{CompactRange, Cover, Hash, encode_hash};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;

use super::source::{Source, SourceError};
use super::spool::{Spool, SpooledRows};
use crate::history::LogState;
use crate::record::{LogRange, LogTree};
use crate::row::LogId;

/// Rows that are requested from a node at once.
const CHUNK_ROWS: u64 = 4_096;
/// Bytes of one log on the local disk after which the log is continued in the next step.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Rows of one log that a step is going to add.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) log: LogId,
    pub(super) from_seq: u64,
    pub(super) to_seq: u64,
    pub(super) note: String,
    pub(super) checkpoint: Checkpoint,
    /// Maximum number of runs. A log with more runs is continued in the next step.
    pub(super) runs_max: usize,
}

/// The rows of a target on the local disk, with what the step says about them.
pub(super) struct Gathered {
    pub(super) range: LogRange,
    pub(super) tree: LogTree,
    pub(super) rows: SpooledRows,
}

/// Reads and checks the rows of a target. An error means that the step does without this log.
pub(super) async fn gather<S: Source>(
    source: &S,
    target: &Target,
    known: Option<&LogState>,
    dir: &Path,
) -> Result<Gathered, SourceError> {
    let local = |error: std::io::Error| SourceError(format!("cannot store its rows on the local disk: {error}"));
    let before = before(source, target, known).await?;
    let mut after = before.clone();
    let mut tiles = Vec::new();
    let mut spool = Spool::new(dir).map_err(local)?;
    let (mut oldest, mut newest, mut era) = (Timestamp::MAX, Timestamp::MIN, 0);
    let mut epochs: Vec<EpochSpan> = Vec::new();
    let mut next = target.from_seq;
    while next < target.to_seq && spool.runs() < target.runs_max && spool.bytes() < LOG_BYTES_MAX {
        let end = target.to_seq.min(next + CHUNK_ROWS);
        let chunk = source.rows(&target.log, next..end).await?;
        epochs = chunk.epochs;
        if chunk.rows.is_empty() || chunk.rows.len() as u64 > end - next {
            return Err(SourceError(format!("row {next} could not be read")));
        }
        for row in &chunk.rows {
            if row.seq != next {
                return Err(SourceError(format!("row {next} is missing")));
            }
            tiles.extend(after.push(row.leaf()));
            (oldest, newest, era) = (oldest.min(row.timestamp), newest.max(row.timestamp), row.era);
            spool.push(row).map_err(local)?;
            next += 1;
        }
    }
    let to_seq = next;
    let rest = rest(source, target, &before, to_seq).await?;
    let root = after.root_of(target.checkpoint.size, &rest);
    if root != Some(target.checkpoint.root) {
        let signed = encode_hash(&target.checkpoint.root);
        let found = root.map_or_else(|| "no root".to_owned(), |root| encode_hash(&root));
        return Err(SourceError(format!(
            "its rows {} to {} do not lead to the cosigned checkpoint of {} rows: they have the root {found} instead of {signed}",
            target.from_seq,
            to_seq - 1,
            target.checkpoint.size
        )));
    }
    let range = LogRange {
        log: target.log.clone(),
        from_seq: target.from_seq,
        to_seq,
        oldest,
        newest,
        era,
        epochs: epochs_in(&epochs, target.from_seq, to_seq),
        checkpoint: target.note.clone(),
    };
    let tree = LogTree {
        log: target.log.clone(),
        from_seq: target.from_seq,
        to_seq,
        before: before.hashes().to_vec(),
        tiles,
        after: after.hashes().to_vec(),
        rest,
    };
    Ok(Gathered { range, tree, rows: spool.finish().map_err(local)? })
}

/// Returns the compact range before the rows. Asks the node only if the archive does not have it.
async fn before<S: Source>(source: &S, target: &Target, known: Option<&LogState>) -> Result<CompactRange, SourceError> {
    if target.from_seq == 0 {
        return Ok(CompactRange::default());
    }
    let known = known.map(|known| &known.after).filter(|known| known.size() == target.from_seq);
    match known {
        Some(known) => Ok(known.clone()),
        None => Ok(surroundings(source, target, target.to_seq).await?.0),
    }
}

/// Returns the hashes that lead from `to_seq` to the checkpoint.
async fn rest<S: Source>(
    source: &S,
    target: &Target,
    before: &CompactRange,
    to_seq: u64,
) -> Result<Vec<Hash>, SourceError> {
    if to_seq == target.checkpoint.size {
        return Ok(Vec::new());
    }
    let (presented, rest) = surroundings(source, target, to_seq).await?;
    if &presented != before {
        return Err(SourceError(format!(
            "its rows before {} are not those that were archived: its log was replaced or changed",
            target.from_seq
        )));
    }
    Ok(rest)
}

/// Asks the node for the hashes before and after the rows up to `to_seq`.
async fn surroundings<S: Source>(
    source: &S,
    target: &Target,
    to_seq: u64,
) -> Result<(CompactRange, Vec<Hash>), SourceError> {
    let size = target.checkpoint.size;
    let hashes = source.proof(&target.log, target.from_seq..to_seq, size).await?;
    let (first, rest) = (target.from_seq.count_ones() as usize, Cover::len_of(to_seq, size));
    if hashes.len() != first + rest {
        return Err(SourceError("its range proof has the wrong number of hashes".to_owned()));
    }
    let (first, rest) = hashes.split_at(first);
    let before = CompactRange::new(target.from_seq, first.to_vec());
    let before = before.ok_or_else(|| SourceError("its range proof is malformed".to_owned()))?;
    Ok((before, rest.to_vec()))
}

/// Returns the epochs that apply to the rows `from..to`.
fn epochs_in(epochs: &[EpochSpan], from: u64, to: u64) -> Vec<EpochSpan> {
    let begin = epochs.iter().rposition(|span| span.first_seq <= from).unwrap_or(0);
    epochs.iter().skip(begin).filter(|span| span.first_seq < to).copied().collect()
}

//! Lays the rows of a step out in files: by day, then by node, generation and seq.

use std::path::Path;

use super::gather::Gathered;
use crate::file::{EncodeError, EncodedFile, FileEncoder};
use crate::record::Run;
use crate::row::{ArchivedRow, Day, LogId};

/// A file on the local disk, and the rows that it has.
pub(super) struct LaidOut {
    pub(super) file: EncodedFile,
    pub(super) runs: Vec<Run>,
}

struct Open {
    encoder: FileEncoder,
    day: Day,
    runs: RunBuilder,
}

/// The runs of the rows of a file.
#[derive(Default)]
pub(super) struct RunBuilder(Vec<Run>);

impl RunBuilder {
    /// Adds the next row. `log` is the index of its log.
    pub(super) fn add(&mut self, log: usize, row: &ArchivedRow) {
        match self.0.last_mut() {
            Some(run) if (run.log, run.era, run.to_seq) == (log, row.era, row.seq) => {
                run.to_seq += 1;
                run.last = row.timestamp;
            }
            _ => self.0.push(Run {
                log,
                from_seq: row.seq,
                to_seq: row.seq + 1,
                era: row.era,
                first: row.timestamp,
                last: row.timestamp,
            }),
        }
    }

    pub(super) fn finish(self) -> Vec<Run> {
        self.0
    }
}

/// Encodes all files. `logs` are sorted; the index of a log is its index in the step.
pub(super) fn lay_out(logs: &mut [Gathered], dir: &Path) -> Result<Vec<LaidOut>, EncodeError> {
    let mut runs: Vec<(Day, usize, usize)> = Vec::new();
    for (index, log) in logs.iter().enumerate() {
        runs.extend(log.rows.runs.iter().enumerate().map(|(at, run)| (run.day, index, at)));
    }
    // Runs of one log are in the order of seq.
    runs.sort_unstable();
    let mut files = Vec::new();
    let mut open: Option<Open> = None;
    for (day, index, at) in runs {
        let log = logs[index].range.log.clone();
        let run = logs[index].rows.runs[at].clone();
        logs[index].rows.read(&run, |row| add(&mut open, &mut files, dir, (day, index), &log, &row))?;
    }
    files.extend(open.map(close).transpose()?);
    Ok(files)
}

fn add(
    open: &mut Option<Open>,
    files: &mut Vec<LaidOut>,
    dir: &Path,
    (day, index): (Day, usize),
    log: &LogId,
    row: &ArchivedRow,
) -> Result<(), EncodeError> {
    if let Some(full) = open.take_if(|open| open.day != day || open.encoder.is_full()) {
        files.push(close(full)?);
    }
    let current = match open {
        Some(current) => current,
        None => {
            let path = dir.join(format!("{}.parquet", files.len()));
            open.insert(Open { encoder: FileEncoder::new(day, &path)?, day, runs: RunBuilder::default() })
        }
    };
    current.encoder.push(log, row)?;
    current.runs.add(index, row);
    Ok(())
}

fn close(open: Open) -> Result<LaidOut, EncodeError> {
    Ok(LaidOut { file: open.encoder.finish()?, runs: open.runs.finish() })
}

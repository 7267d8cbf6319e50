//! Finds rows whose erasure the archive's own entries declare, and whose content is still in the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use piperoll_format::merkle::TILE_WIDTH;
use piperoll_format::note::VerifyingKey;
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::Erased;
use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;

use super::catalog::CatalogLog;
use super::erasures::{ERASURES_FILTER, declared_by};
use super::error::ReadError;
use super::rows::Reader;
use super::scan::{LogScan, ScanRange};
use crate::record::{FileErasure, FileRecord, RowOfFile, STEP_BYTES_MAX, Step, names};
use crate::row::LogId;

/// Erasures that have to be carried out in the archive.
#[derive(Debug, Default)]
pub struct DueErasures {
    pub files: Vec<FileErasure>,
    /// Declarations that do not fit to their row, so that nothing is erased.
    pub refused: Vec<String>,
    /// Logs whose rows cannot be read because objects were changed. Their erasures are not known.
    pub unread: Vec<String>,
}

impl Reader {
    /// Finds the rows that the rows of the steps after `step` declare as erased, and that still have their content. `key` is the archive's
    /// key.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if an object is not what its step says.
    pub async fn due_erasures(&self, step: u64, key: &VerifyingKey) -> Result<DueErasures, ReadError> {
        let mut due = DueErasures::default();
        let mut rows: BTreeMap<usize, BTreeSet<(LogId, u64)>> = BTreeMap::new();
        for (log, of_log) in self.catalog().logs() {
            match self.due_in(log, of_log, step, &mut due.refused).await {
                Ok(found) => {
                    for (file, seq) in found {
                        rows.entry(file).or_default().insert((log.clone(), seq));
                    }
                }
                Err(error) if error.is_violation() => due.unread.push(format!("{log}: {error}")),
                Err(error) => return Err(error),
            }
        }
        for (file, rows) in rows {
            due.files.push(self.file_erasure(file, &rows, key).await?);
        }
        Ok(due)
    }

    /// The due erasures of one log: index of the file, and seq.
    async fn due_in(
        &self,
        log: &LogId,
        of_log: &CatalogLog,
        step: u64,
        refused: &mut Vec<String>,
    ) -> Result<Vec<(usize, u64)>, ReadError> {
        let mut found = Vec::new();
        for added in of_log.added_after(step) {
            for said in self.declared(log, added).await? {
                let file = self.file_with_content(log, of_log, &said, refused).await?;
                found.extend(file.map(|file| (file, said.seq)));
            }
        }
        Ok(found)
    }

    /// Erasures that entries among `rows` declare.
    async fn declared(&self, log: &LogId, rows: Range<u64>) -> Result<Vec<Erased>, ReadError> {
        let range = ScanRange {
            log: log.clone(),
            begin: Position { timestamp: Timestamp::MIN, seq: 0 },
            end: Position { timestamp: Timestamp::MAX, seq: u64::MAX },
            order: Order::Asc,
            rows,
            filter: Arc::new(Filter::parse_stored(ERASURES_FILTER, Timestamp::MIN).unwrap_or_default()),
            erased: Arc::default(),
        };
        let mut found = Vec::new();
        let Some(mut scan) = LogScan::new(self.clone(), range) else { return Ok(found) };
        while let Some(row) = scan.next().await? {
            found.extend(declared_by(&row));
        }
        Ok(found)
    }

    /// The file that has the content of a row; `None` if it is not in the archive, or was never there.
    async fn file_with_content(
        &self,
        log: &LogId,
        of_log: &CatalogLog,
        said: &Erased,
        refused: &mut Vec<String>,
    ) -> Result<Option<usize>, ReadError> {
        let Some(run) = of_log.runs_in(&(said.seq..said.seq.saturating_add(1))).first() else { return Ok(None) };
        let rows = self.tiles(log, &[said.seq / TILE_WIDTH]).await?;
        let Some(row) = rows.into_iter().find(|row| row.seq == said.seq) else { return Ok(None) };
        if row.is_erased() {
            return Ok(None);
        }
        if (row.leaf(), row.era, row.timestamp) != (said.leaf, said.era, said.timestamp) {
            refused
                .push(format!("row {} of {log}: the entry that declares its erasure describes another row", said.seq));
            return Ok(None);
        }
        Ok(Some(run.file))
    }

    /// Describes the rows of a file that are going to lose their content.
    async fn file_erasure(
        &self,
        file: usize,
        rows: &BTreeSet<(LogId, u64)>,
        key: &VerifyingKey,
    ) -> Result<FileErasure, ReadError> {
        let known = self.catalog().file(file);
        let changed = || ReadError::changed(&names::step(known.step), format!("it does not describe {}", known.name));
        let step = self.read_step(known.step, key).await?;
        let replaced = step.replaced.iter().find(|replaced| replaced.file.name == known.name);
        let (logs, mut record): (Vec<LogId>, FileRecord) = match replaced {
            Some(replaced) => (replaced.logs.clone(), replaced.file.clone()),
            None => {
                let record = step.files.iter().find(|record| record.name == known.name).ok_or_else(changed)?;
                (step.logs.iter().map(|range| range.log.clone()).collect(), record.clone())
            }
        };
        // Only the logs of the file, in the order of the step.
        let used: BTreeSet<usize> = record.runs.iter().map(|run| run.log).collect();
        let used: Vec<usize> = used.into_iter().collect();
        for run in &mut record.runs {
            run.log = used.binary_search(&run.log).map_err(|_| changed())?;
        }
        let logs: Option<Vec<LogId>> = used.iter().map(|at| logs.get(*at).cloned()).collect();
        let logs = logs.ok_or_else(changed)?;
        let at = |log: &LogId| logs.iter().position(|known| known == log);
        let erased: Option<Vec<RowOfFile>> =
            rows.iter().map(|(log, seq)| Some(RowOfFile { log: at(log)?, seq: *seq })).collect();
        let erased = erased.ok_or_else(changed)?;
        Ok(FileErasure { logs, file: record, erased })
    }

    async fn read_step(&self, number: u64, key: &VerifyingKey) -> Result<Step, ReadError> {
        let bytes = self.store().read(&names::step(number), STEP_BYTES_MAX as u64).await?;
        Ok(Step::read(number, &bytes, key)?)
    }
}

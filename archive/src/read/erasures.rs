//! Rows whose erasure an entry of their log declares. A row that was erased after it was archived still has its content in the archive; it
//! must not be shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use piperoll_format::order::{Order, Position};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_query::filter::Filter;

use super::cache::Erasures;
use super::error::ReadError;
use super::rows::Reader;
use super::scan::{LogScan, ScanRange, ScanStep};
use crate::row::{ArchivedRow, Content, LogId};

/// Filter that selects the entries that declare erasures.
pub const ERASURES_FILTER: &str = "action:log.erased";

impl Reader {
    /// Finds the entries of the archive that declare erasures in a log. Their MACs are not verified. Rows that were read by an earlier call, even by
    /// one that was cancelled, are not read again. `progress` is called with the number of rows that have been searched.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if an object is not what its step says.
    pub async fn find_erasures(&self, log: &LogId, progress: impl Fn(u64)) -> Result<(), ReadError> {
        let Some(of_log) = self.catalog().log(log) else { return Ok(()) };
        for run in of_log.runs_in(&(self.caches().erasures(log).0..u64::MAX)) {
            self.search_erasures(log, run.to_seq, &progress).await?;
        }
        Ok(())
    }

    /// Erasures that are known without reading.
    pub fn known_erasures(&self, log: &LogId) -> Arc<Erasures> {
        self.caches().erasures(log).1
    }

    /// Remembers erasures that are declared by entries after the archived rows.
    pub fn remember_erasures(&self, log: &LogId, more: &Erasures) {
        self.caches().add_erasures(log, more);
    }

    /// Searches the rows below `end` that were not searched yet.
    async fn search_erasures(&self, log: &LogId, end: u64, progress: &impl Fn(u64)) -> Result<(), ReadError> {
        let (scanned, known) = self.caches().erasures(log);
        let range = ScanRange {
            log: log.clone(),
            begin: Position { timestamp: Timestamp::MIN, seq: 0 },
            end: Position { timestamp: Timestamp::MAX, seq: u64::MAX },
            order: Order::Asc,
            rows: scanned..end,
            filter: Arc::new(Filter::parse_stored(ERASURES_FILTER, Timestamp::MIN).unwrap_or_default()),
            erased: Arc::new(BTreeSet::new()),
        };
        let mut found = known.as_ref().clone();
        if let Some(mut scan) = LogScan::new(self.clone(), range) {
            loop {
                match scan.step().await? {
                    ScanStep::Row(row) => note_erasure(&mut found, row),
                    ScanStep::Read => progress(scanned.saturating_add(scan.scanned())),
                    ScanStep::End => break,
                }
            }
        }
        self.caches().keep_erasures(log, end, &Arc::new(found));
        Ok(())
    }
}

/// Adds an entry that declares an erasure; other entries are ignored.
pub fn note_erasure(known: &mut Erasures, row: ArchivedRow) {
    let Content::Entry { body, .. } = &row.content else { return };
    if let Some(Statement::Erased(said)) = Statement::read(body)
        && said.seq < row.seq
    {
        known.entry(said.seq).or_insert_with(|| Arc::new(row));
    }
}

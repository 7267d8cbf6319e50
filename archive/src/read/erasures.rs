//! Rows whose erasure an entry of their log declares. A row that was erased after it was archived still has its content in the archive; it
//! must not be shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use piperoll_format::merkle::TILE_WIDTH;
use piperoll_format::order::{Order, Position};
use piperoll_format::statement::{Erased, Statement};
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

    /// Erasures that are known without reading. Each of them describes its row.
    pub fn known_erasures(&self, log: &LogId) -> Arc<Erasures> {
        self.caches().erasures(log).1
    }

    /// Remembers erasures that are declared by entries after the archived rows. An entry that describes another row than the archived one
    /// is ignored: anyone who can record an erasure could hide a row with it.
    ///
    /// # Errors
    /// As for [`Reader::find_erasures`].
    pub async fn remember_erasures(&self, log: &LogId, declared: Vec<ArchivedRow>) -> Result<(), ReadError> {
        let known = self.known_erasures(log);
        let mut more = Erasures::new();
        self.note_fitting(log, declared, &known, &mut more).await?;
        self.caches().add_erasures(log, &more);
        Ok(())
    }

    /// Adds the entries that declare the erasure of an archived row, and describe it.
    async fn note_fitting(
        &self,
        log: &LogId,
        declared: Vec<ArchivedRow>,
        known: &Erasures,
        found: &mut Erasures,
    ) -> Result<(), ReadError> {
        for entry in declared {
            let Some(said) = declared_by(&entry) else { continue };
            if known.contains_key(&said.seq) || found.contains_key(&said.seq) {
                continue;
            }
            let rows = self.tiles(log, &[said.seq / TILE_WIDTH]).await?;
            let row = rows.into_iter().find(|row| row.seq == said.seq);
            if row.is_some_and(|row| (row.leaf(), row.era, row.timestamp) == (said.leaf, said.era, said.timestamp)) {
                found.insert(said.seq, Arc::new(entry));
            }
        }
        Ok(())
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
        let mut declared = Vec::new();
        if let Some(mut scan) = LogScan::new(self.clone(), range) {
            loop {
                match scan.step().await? {
                    ScanStep::Row(row) => declared.push(row),
                    ScanStep::Read => progress(scanned.saturating_add(scan.scanned())),
                    ScanStep::End => break,
                }
            }
        }
        let mut found = known.as_ref().clone();
        self.note_fitting(log, declared, &known, &mut found).await?;
        self.caches().keep_erasures(log, end, &Arc::new(found));
        Ok(())
    }
}

/// Erasure that an entry declares.
pub(super) fn declared_by(entry: &ArchivedRow) -> Option<Erased> {
    let Content::Entry { body, .. } = &entry.content else { return None };
    match Statement::read(body)? {
        Statement::Erased(said) if said.seq < entry.seq => Some(said),
        _ => None,
    }
}

//! Reads rows in order, in short batches.
//!
//! Within an era, time never decreases, so the rows of a time range are contiguous in each era. They are found by binary search
//! over rows whose MAC is valid; there is no index on time. Rows of several eras are merged by `(timestamp, seq)`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use piperoll_format::ids::{EntryId, Generation, NodeId};
use piperoll_format::mac::KeyRing;
use piperoll_format::merkle::{RangeProof, TileCache};
use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{EpochSpan, Integrity, RowChecker};
use piperoll_format::view::EntryView;
use piperoll_protocol::node::{PrunedRows, ScanRequest};
use piperoll_query::filter::{ErasedFit, Filter};
use piperoll_query::stats::Counter;
use rusqlite::{Connection, OptionalExtension as _};

use super::era_cursor::{EraCursor, Faults, Reading};
use super::past_log::ArchivedLog;
use super::prove::{ProofPart, Prover, ROWS_PER_PROOF, border_rows};
use crate::store::index::Index;
use crate::store::table::erased::{self, row_at};
use crate::store::table::error::ReadError;
use crate::store::table::log_start::{LogStart, first_seq, floor};
use crate::store::table::mac_epochs::epochs;
use crate::store::table::rows::{Extent, SEQ_MAX, StoredRow};
use crate::store::table::tiles::TreeError;
use crate::store::table::time_search::{EraPart, Search};

/// Maximum number of rows fetched at once, and the minimum for scans whose filter may drop some of the rows.
const BLOCK_ROWS: usize = 512;
const FILTERED_ROWS_MIN: usize = 16;
/// Limits of a batch, which ends when either of them is reached.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_TIME: Duration = Duration::from_millis(100);

/// The next rows of a scan.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: Vec<StoredRow>,
    /// Proof for the rows that are sound and covered by the client's checkpoint, if the client requested a proof.
    pub proof: Option<RangeProof>,
    /// Rows just outside the range, and their proof, in the last batch of an unfiltered scan.
    pub borders: Vec<StoredRow>,
    pub borders_proof: Option<RangeProof>,
    /// No batch follows.
    pub done: bool,
}

/// State of a scan between two batches. Holds no connection and no transaction.
pub struct Scan {
    filter: Filter,
    index: Option<Arc<Index>>,
    /// Seqs of the IDs that the filter names.
    ids: HashMap<EntryId, u64>,
    order: Order,
    limit: Option<u64>,
    runs: Vec<EraCursor>,
    checker: RowChecker,
    /// Position up to which rows were already delivered, including the row at this position.
    after: Option<Position>,
    range: (Timestamp, Timestamp),
    from_seq: u64,
    scanned: u64,
    sent: u64,
    faults: Faults,
    prover: Option<Prover>,
    floor: Option<LogStart>,
    epochs: Vec<EpochSpan>,
    node_id: NodeId,
    /// Number of erased rows of the range whose match with the filter depends on their erased content.
    erased: u64,
    /// Position up to which every row, in the requested order, has been examined.
    reached: Option<Position>,
    /// The archived log, if the scan reads one.
    aside: Option<ArchivedLog>,
    /// Counter for the sound matching rows, if the request asks for counts.
    counter: Option<Counter>,
}

/// Index and cache that make reading the log faster.
pub(in crate::store) struct ScanContext {
    pub(in crate::store) index: Option<Arc<Index>>,
    pub(in crate::store) tiles: Arc<TileCache>,
}

impl Scan {
    /// Finds the ranges to read. `head` is the newest row that the node knows it wrote. It may be beyond the last row in the
    /// table; the difference is then reported as a gap.
    pub(in crate::store) fn plan(
        conn: &Connection,
        request: &ScanRequest,
        filter: Filter,
        head: Option<u64>,
        ring: KeyRing,
        generation: Generation,
        beside: ScanContext,
    ) -> Result<Self, ReadError> {
        let ScanContext { index, tiles } = beside;
        if let Some(asked) = request.generation
            && asked != generation
        {
            return Err(ReadError::Generation { now: generation.to_string(), asked: asked.to_string() });
        }
        let newest = head;
        let head = match (request.head, head) {
            (Some(asked), Some(head)) => Some(asked.min(head)),
            (None, head) => head,
            (Some(_), None) => None,
        };
        let ids = if index.is_some() { find_ids(conn, &filter)? } else { HashMap::new() };
        let mut scan = Self {
            filter,
            index,
            ids,
            order: request.order,
            limit: request.limit,
            runs: Vec::new(),
            node_id: ring.node_id().clone(),
            erased: 0,
            reached: None,
            aside: None,
            checker: RowChecker::new(ring, generation),
            after: request.after,
            range: (request.from, request.to),
            from_seq: request.from_seq.unwrap_or(0),
            scanned: 0,
            sent: 0,
            faults: Faults::default(),
            prover: None,
            floor: None,
            epochs: Vec::new(),
            counter: request.count.clone().map(Counter::new),
        };
        // Read the tables in one transaction, so that they are consistent with each other.
        let _one_moment = conn.unchecked_transaction()?;
        let floor = floor(conn, &mut scan.checker)?;
        match floor {
            Ok(floor) => scan.floor = floor,
            Err(message) => scan.faults.note(|| message),
        }
        let first = first_seq(scan.floor.as_ref());
        match epochs(conn, &mut scan.checker, scan.floor.as_ref())? {
            Ok(epochs) => scan.epochs = epochs,
            Err(message) => scan.faults.note(|| message),
        }
        scan.checker.know_epochs(scan.epochs.clone());
        // Counts have no proof.
        scan.prover = match request.prove.filter(|_| request.count.is_none()) {
            Some(size) if size > newest.map_or(0, |newest| newest + 1) => {
                scan.faults.note(|| format!("{size} rows were witnessed, but this log has fewer"));
                None
            }
            size => size.filter(|size| *size > 0).map(|size| Prover::new(size, tiles)),
        };
        if let Some(head) = head {
            let mut search = Search { conn, checker: &mut scan.checker };
            for (from, to) in search.eras(first, head.min(SEQ_MAX) + 1)? {
                let from = from.max(request.from_seq.unwrap_or(0));
                if from >= to {
                    continue;
                }
                let EraPart { from: start, to: end, carry } = search.narrow(from, to, request)?;
                let end = end.max(start);
                scan.erased += erased::count_undecided(conn, &scan.filter, &scan.node_id, start..end)?;
                scan.runs.push(EraCursor::new(from..to, start..end, carry, request.order));
            }
        }
        Ok(scan)
    }

    /// Marks this as a scan of an archived log.
    pub(in crate::store) fn of_aside(&mut self, aside: ArchivedLog) {
        self.aside = Some(aside);
    }

    pub(in crate::store) fn aside(&self) -> Option<&ArchivedLog> {
        self.aside.as_ref()
    }

    /// Generation and extent of the archived log, if the scan reads one.
    pub fn log_aside(&self) -> Option<(Generation, Extent)> {
        self.aside.as_ref().map(|aside| (aside.generation, aside.extent))
    }

    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Log start, if rows were pruned.
    pub fn floor(&self) -> Option<&LogStart> {
        self.floor.as_ref()
    }

    /// Pruned rows, if the requested range extends to them.
    pub fn reaches_pruned(&self) -> Option<PrunedRows> {
        self.floor
            .as_ref()
            .map(LogStart::rows)
            .filter(|pruned| self.range.0 <= pruned.newest && self.from_seq < pruned.to_seq)
    }

    /// Number of erased rows of the range that are not returned, because their match with the filter depends on their erased
    /// content.
    pub fn erased(&self) -> u64 {
        self.erased
    }

    /// Epochs of the MAC key, each with its first row.
    pub fn epochs(&self) -> &[EpochSpan] {
        &self.epochs
    }

    /// Removes the counts from the scan and returns them. They are final once all rows have been read.
    pub fn take_counts(&mut self) -> Option<Counter> {
        self.counter.take()
    }

    /// Position up to which every row has been examined by the end of the last batch; `None` if the next row is not sound or the
    /// scan is done.
    pub fn reached(&self) -> Option<Position> {
        self.reached
    }

    pub fn limit_reached(&self) -> bool {
        self.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// Messages about gaps in the scanned range.
    pub fn faults(&self) -> Vec<String> {
        self.faults.describe()
    }

    /// Reads the next batch. A row that fails its check is returned regardless of the filter, because tampering must not be able
    /// to hide a row from a search. With an index, reads only the rows that match according to the index, and those that were
    /// already unsound when they were indexed.
    pub(in crate::store) fn next_batch(&mut self, conn: &Connection) -> Result<Batch, ReadError> {
        let until = Instant::now() + BATCH_TIME;
        let mut batch = Batch::default();
        let mut bytes = 0;
        let rows_max = if self.prover.is_some() { ROWS_PER_PROOF } else { usize::MAX };
        while bytes < BATCH_BYTES && batch.rows.len() < rows_max && Instant::now() < until {
            if self.limit_reached() {
                batch.done = true;
                break;
            }
            let Some(row) = self.next_row(conn, until)? else {
                batch.done = self.runs.iter().all(|run| run.buffer.is_empty() && !run.goes_on());
                break;
            };
            self.scanned += 1;
            let position = row.position();
            if self.after.is_some_and(|after| !self.order.before(&after, &position)) {
                continue;
            }
            let (from, to) = self.range;
            if row.is_sound() && !(from..to).contains(&row.timestamp) {
                // Skip sound rows outside the requested range. The time search finds a range that is larger than requested if too
                // many consecutive rows are unsound.
                continue;
            }
            if self.is_wanted(&row) {
                bytes += row.body.len() + 64;
                self.sent += 1;
                batch.rows.push(row);
            }
        }
        self.reached = if batch.done { None } else { self.place(conn)? };
        self.prove(conn, &mut batch)?;
        Ok(batch)
    }

    /// Returns the position just before the next row of any era. Only authenticated times count: with a forged time, a client
    /// that continues from that position would skip rows.
    fn place(&mut self, conn: &Connection) -> rusqlite::Result<Option<Position>> {
        let mut first: Option<Position> = None;
        for run in &self.runs {
            let next = match run.buffer.front() {
                Some(row) if row.is_sound() => Some(row.position()),
                Some(_) => return Ok(None),
                None if run.goes_on() => {
                    let row = row_at(conn, &mut self.checker, run.next(self.order))?;
                    let Some(row) = row.filter(StoredRow::is_sound) else { return Ok(None) };
                    Some(Position { timestamp: row.timestamp, seq: row.seq })
                }
                None => None,
            };
            if let Some(next) = next
                && first.is_none_or(|first| self.order.before(&next, &first))
            {
                first = Some(next);
            }
        }
        let in_front = |next: Position| match self.order {
            Order::Asc => next.seq.checked_sub(1).map(|seq| Position { seq, ..next }),
            Order::Desc => Some(Position { seq: next.seq + 1, ..next }),
        };
        Ok(first.and_then(in_front))
    }

    /// Returns whether a row is sent to the client. Sound rows of a scan that counts are not sent. An erased row is sent only if
    /// the filter selects it without its content.
    fn is_wanted(&mut self, row: &StoredRow) -> bool {
        if row.checked.integrity == Integrity::Erased {
            return self.filter.on_erased(self.node_id.as_str(), row.seq) == ErasedFit::Yes;
        }
        if row.checked.integrity != Integrity::Ok || self.filter.is_empty() && self.counter.is_none() {
            return true;
        }
        let view = EntryView::parse(&row.body);
        if row.indexed && !view.as_ref().is_some_and(|view| self.filter.matches(view)) {
            // The row's MAC is valid, so a holder of the secret changed the row.
            self.faults.note(|| format!("row {} was changed after it was indexed", row.seq));
        }
        let Some(counter) = &mut self.counter else {
            return view.is_none_or(|view| self.filter.matches(&view));
        };
        match view {
            None => counter.add_unreadable(),
            Some(view) if self.filter.matches(&view) => counter.add(&view, row.timestamp),
            Some(_) => {}
        }
        false
    }

    /// Adds the proofs. If the tree cannot be read, that is a fault of the log, but no reason to withhold its rows.
    fn prove(&mut self, conn: &Connection, batch: &mut Batch) -> Result<(), ReadError> {
        match self.try_prove(conn, batch) {
            Ok(()) => Ok(()),
            Err(TreeError::Sqlite(error)) => Err(error.into()),
            Err(TreeError::Pruned(_)) => Err(ReadError::PrunedMeanwhile),
            Err(problem) => {
                self.faults.note(|| format!("the rows cannot be proven: {problem}"));
                self.prover = None;
                Ok(())
            }
        }
    }

    fn try_prove(&mut self, conn: &Connection, batch: &mut Batch) -> Result<(), TreeError> {
        let Some(prover) = &mut self.prover else { return Ok(()) };
        batch.proof = Some(prover.prove(conn, &batch.rows)?);
        if batch.done && self.filter.is_empty() {
            let parts: Vec<ProofPart> = self.runs.iter().map(|run| run.read(self.order)).collect();
            let statement = self.floor.as_ref().map(|floor| floor.entry_seq);
            batch.borders = border_rows(conn, &parts, statement, prover.size(), &mut self.checker)?;
            batch.borders_proof = Some(prover.prove(conn, &batch.borders)?);
        }
        Ok(())
    }

    fn next_row(&mut self, conn: &Connection, until: Instant) -> Result<Option<StoredRow>, ReadError> {
        let mut best: Option<(usize, Position)> = None;
        for index in 0..self.runs.len() {
            if self.runs[index].buffer.is_empty() && self.runs[index].goes_on() {
                self.fill(conn, index, until)?;
                if self.runs[index].buffer.is_empty() && self.runs[index].goes_on() {
                    // Time is up, and the next row of the answer may be among the unread rows of this era.
                    return Ok(None);
                }
            }
            if let Some(row) = self.runs[index].buffer.front() {
                let position = row.position();
                if best.as_ref().is_none_or(|(_, other)| self.order.before(&position, other)) {
                    best = Some((index, position));
                }
            }
        }
        Ok(best.and_then(|(index, _)| self.runs[index].buffer.pop_front()))
    }

    /// Fetches the next rows of one era.
    fn fill(&mut self, conn: &Connection, index: usize, until: Instant) -> Result<(), ReadError> {
        let gaps = self.faults.gaps;
        // A page needs few rows: do not read a block of 512 rows for a limit of 50.
        let want = match self.limit {
            Some(limit) => {
                let left = usize::try_from(limit - self.sent).unwrap_or(BLOCK_ROWS);
                left.clamp(if self.filter.is_empty() { 1 } else { FILTERED_ROWS_MIN }, BLOCK_ROWS)
            }
            None => BLOCK_ROWS,
        };
        let mut reading = Reading {
            conn,
            checker: &mut self.checker,
            faults: &mut self.faults,
            order: self.order,
            range: self.range,
            filter: &self.filter,
            index: self.index.as_deref(),
            counter: self.counter.as_mut(),
            ids: &self.ids,
            want,
            until,
        };
        // Use one short transaction instead of one for every few rows, and end it before the rows are filtered and proven.
        let one_moment = reading.conn.unchecked_transaction()?;
        self.runs[index].fill(&mut reading)?;
        drop(one_moment);
        if self.faults.gaps > gaps {
            self.look_for_prune(conn)?;
        }
        Ok(())
    }

    /// Fails if the missing rows were pruned since the scan began: the gap is then no fault of the log, but the answer is
    /// unusable.
    fn look_for_prune(&mut self, conn: &Connection) -> Result<(), ReadError> {
        let now = floor(conn, &mut self.checker)?;
        let moved = now
            .is_ok_and(|now| now.is_some_and(|now| Some(&now.pruned) != self.floor.as_ref().map(|then| &then.pruned)));
        if moved { Err(ReadError::PrunedMeanwhile) } else { Ok(()) }
    }
}

/// Looks up the seqs of the IDs that a filter names, in the table of IDs. A full check compares that table with the rows.
fn find_ids(conn: &Connection, filter: &Filter) -> rusqlite::Result<HashMap<EntryId, u64>> {
    let mut found = HashMap::new();
    for id in filter.named_ids() {
        let mut statement = conn.prepare_cached("SELECT seq FROM ids WHERE id = ?1")?;
        let seq: Option<i64> = statement.query_row([&id.as_bytes()[..]], |row| row.get(0)).optional()?;
        found.extend(seq.and_then(|seq| u64::try_from(seq).ok()).map(|seq| (id, seq)));
    }
    Ok(found)
}

pub(in crate::store) fn parse_filter(request: &ScanRequest, now: Timestamp) -> Result<Filter, ReadError> {
    Filter::parse_stored(&request.filter, now).map_err(|e| ReadError::Filter(e.to_string()))
}

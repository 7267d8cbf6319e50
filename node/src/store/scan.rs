//! Reading rows in order, in short batches.
//!
//! Inside an era the time never decreases, so a time range is one contiguous seq range per era and is found
//! by binary search over rows whose signature fits; no index on time exists. Rows of several eras are merged by `(timestamp, seq)`.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use piperoll_shared::api::node::{PrunedRows, ScanRequest};
use piperoll_shared::log::filter::Filter;
use piperoll_shared::log::ids::Generation;
use piperoll_shared::log::order::{Order, Position};
use piperoll_shared::log::seal::KeyRing;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::tree::RangeProof;
use piperoll_shared::log::verify::{EpochSpan, Integrity, RowChecker, SequenceFault};
use piperoll_shared::log::view::EntryView;
use rusqlite::Connection;

use super::epochs::epochs;
use super::erase;
use super::error::ReadError;
use super::floor::{Floor, first_seq, floor};
use super::prove::{EraPart, Prover, ROWS_PER_PROOF, border_rows};
use super::rows::{ERA_COLUMN, SEQ_MAX, StoredRow, read_row};
use super::search::{Part, Search};
use super::tree::TreeError;

/// Rows and bytes fetched by one statement, which is one read transaction.
const BLOCK_ROWS: usize = 512;
const BLOCK_BYTES: usize = 1024 * 1024;
/// A batch ends at whichever comes first.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_TIME: Duration = Duration::from_millis(100);
/// Faults spelled out in one answer; the rest would say the same.
const FAULTS_LISTED_MAX: usize = 20;

/// The next rows of a scan.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: Vec<StoredRow>,
    /// For those of the rows that are sound and under the reader's checkpoint, when it asked.
    pub proof: Option<RangeProof>,
    /// With the last batch of an unfiltered scan: rows beside the range, and their proof.
    pub borders: Vec<StoredRow>,
    pub borders_proof: Option<RangeProof>,
    /// Nothing follows.
    pub done: bool,
}

/// A scan between two batches. It holds no connection and no transaction.
pub struct Scan {
    filter: Filter,
    order: Order,
    limit: Option<u64>,
    runs: Vec<Run>,
    checker: RowChecker,
    /// Rows at or before this place were delivered already.
    after: Option<Position>,
    range: (Timestamp, Timestamp),
    from_seq: u64,
    scanned: u64,
    sent: u64,
    faults: Faults,
    prover: Option<Prover>,
    floor: Option<Floor>,
    epochs: Vec<EpochSpan>,
}

/// What is wrong with the sequence of rows, in words. Bounded: a log with every second row gone has as many
/// gaps as rows.
#[derive(Debug, Default)]
struct Faults {
    listed: Vec<String>,
    more: u64,
    gaps: u64,
}

/// The rows of one era that are still to be read: `from..to` in seq.
struct Run {
    era: Range<u64>,
    part: Range<u64>,
    from: u64,
    to: u64,
    /// Place of the next row, should it not be sound.
    carry: Timestamp,
    buffer: VecDeque<StoredRow>,
}

impl Scan {
    /// Finds the ranges to read. `head` is the newest row the node knows it wrote, which may be more than the
    /// table still holds; the difference is a gap.
    pub(super) fn plan(
        conn: &Connection,
        request: &ScanRequest,
        filter: Filter,
        head: Option<u64>,
        ring: KeyRing,
        generation: Generation,
    ) -> Result<Self, ReadError> {
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
        let mut scan = Self {
            filter,
            order: request.order,
            limit: request.limit,
            runs: Vec::new(),
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
        };
        // What the tables say about each other is read at one moment.
        let _one_moment = conn.unchecked_transaction()?;
        let floor = floor(conn, &mut scan.checker)?;
        match floor {
            Ok(floor) => scan.floor = floor,
            Err(words) => scan.faults.note(|| words),
        }
        let first = first_seq(scan.floor.as_ref());
        match epochs(conn, &mut scan.checker, scan.floor.as_ref())? {
            Ok(epochs) => scan.epochs = epochs,
            Err(words) => scan.faults.note(|| words),
        }
        scan.checker.know_epochs(scan.epochs.clone());
        scan.prover = match request.prove {
            Some(size) if size > newest.map_or(0, |newest| newest + 1) => {
                scan.faults.note(|| format!("{size} rows were witnessed, and this log has fewer"));
                None
            }
            size => size.filter(|size| *size > 0).map(Prover::new),
        };
        if let Some(head) = head {
            let mut search = Search { conn, checker: &mut scan.checker };
            for (from, to) in search.eras(first, head.min(SEQ_MAX) + 1)? {
                let from = from.max(request.from_seq.unwrap_or(0));
                if from >= to {
                    continue;
                }
                let Part { from: start, to: end, carry } = search.narrow(from, to, request)?;
                let end = end.max(start);
                let (era, part, buffer) = (from..to, start..end, VecDeque::new());
                scan.runs.push(Run { era, part, from: start, to: end, carry, buffer });
            }
        }
        Ok(scan)
    }

    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Where the log begins, when rows were pruned.
    pub fn floor(&self) -> Option<&Floor> {
        self.floor.as_ref()
    }

    /// The same, when the range that was asked for reaches back to pruned rows.
    pub fn reaches_pruned(&self) -> Option<PrunedRows> {
        self.floor
            .as_ref()
            .map(Floor::rows)
            .filter(|pruned| self.range.0 <= pruned.newest && self.from_seq < pruned.to_seq)
    }

    /// Which epoch seals which rows.
    pub fn epochs(&self) -> &[EpochSpan] {
        &self.epochs
    }

    pub fn limit_reached(&self) -> bool {
        self.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// Gaps in the scanned range, in words.
    pub fn faults(&self) -> Vec<String> {
        let mut words = self.faults.listed.clone();
        if self.faults.more > 0 {
            words.push(format!("and {} more", self.faults.more));
        }
        words
    }

    /// Reads on. A row that fails its check is given whatever the filter says: an edit must not be able to
    /// hide a row from a search.
    pub(super) fn next_batch(&mut self, conn: &Connection) -> Result<Batch, ReadError> {
        let started = Instant::now();
        let mut batch = Batch::default();
        let mut bytes = 0;
        let rows_max = if self.prover.is_some() { ROWS_PER_PROOF } else { usize::MAX };
        while bytes < BATCH_BYTES && batch.rows.len() < rows_max && started.elapsed() < BATCH_TIME {
            if self.limit_reached() {
                batch.done = true;
                break;
            }
            let Some(row) = self.next_row(conn)? else {
                batch.done = true;
                break;
            };
            self.scanned += 1;
            let position = row.position();
            if self.after.is_some_and(|after| !self.order.before(&after, &position)) {
                continue;
            }
            let (from, to) = self.range;
            if row.is_sound() && !(from..to).contains(&row.timestamp) {
                // A search that met too many unsound rows reads more than the range, and this row of it is known
                // not to belong there.
                continue;
            }
            let wanted = row.checked.integrity != Integrity::Ok
                || self.filter.is_empty()
                || EntryView::parse(&row.body).is_none_or(|view| self.filter.matches(&view));
            if wanted {
                bytes += row.body.len() + 64;
                self.sent += 1;
                batch.rows.push(row);
            }
        }
        self.prove(conn, &mut batch)?;
        Ok(batch)
    }

    /// Adds the proofs. A tree that cannot be read is a fault of the log, and no reason to keep its rows back.
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
            let parts: Vec<EraPart> = self.runs.iter().map(|run| run.read(self.order)).collect();
            let statement = self.floor.as_ref().map(|floor| floor.entry_seq);
            batch.borders = border_rows(conn, &parts, statement, prover.size(), &mut self.checker)?;
            batch.borders_proof = Some(prover.prove(conn, &batch.borders)?);
        }
        Ok(())
    }

    fn next_row(&mut self, conn: &Connection) -> Result<Option<StoredRow>, ReadError> {
        let mut best: Option<(usize, Position)> = None;
        for index in 0..self.runs.len() {
            if self.runs[index].buffer.is_empty() {
                self.fill(conn, index)?;
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

    /// Fetches the next block of one run and notes every seq in it that is not there.
    fn fill(&mut self, conn: &Connection, index: usize) -> Result<(), ReadError> {
        let gaps = self.faults.gaps;
        let run = &mut self.runs[index];
        if run.from >= run.to {
            return Ok(());
        }
        let sql = match self.order {
            Order::Asc => {
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq ASC LIMIT ?3"
            }
            Order::Desc => {
                "SELECT seq, ts, era, epoch, mac, body FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
            }
        };
        // A page wants few rows: do not read a block of 512 for a limit of 50.
        let want = match self.limit {
            Some(limit) if self.filter.is_empty() => {
                usize::try_from(limit - self.sent).unwrap_or(BLOCK_ROWS).clamp(1, BLOCK_ROWS)
            }
            _ => BLOCK_ROWS,
        };
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query((run.from, run.to, want))?;
        let (mut bytes, mut count) = (0, 0);
        let mut exhausted = true;
        while let Some(row) = rows.next()? {
            let mut stored = read_row(row, &mut self.checker)?;
            erase::recognise(conn, &mut self.checker, &mut stored)?;
            bytes += stored.body.len();
            count += 1;
            let seq = stored.seq;
            if stored.is_sound() {
                run.carry = stored.timestamp;
                stored.place = stored.timestamp;
            } else {
                let (from, to) = self.range;
                stored.place = run.carry.clamp(from, to.plus_micros(-1).max(from));
            }
            if stored.checked.reason == Some(ERA_COLUMN) {
                // The bytes and their signature are good, so no other reader could see this one.
                self.faults.note(|| format!("row {seq}: {ERA_COLUMN}"));
            }
            match self.order {
                Order::Asc => {
                    self.faults.gap(run.from, seq);
                    run.from = seq + 1;
                }
                Order::Desc => {
                    self.faults.gap(seq + 1, run.to);
                    run.to = seq;
                }
            }
            run.buffer.push_back(stored);
            if bytes >= BLOCK_BYTES || count == want {
                exhausted = false;
                break;
            }
        }
        if exhausted {
            self.faults.gap(run.from, run.to);
            run.from = run.to;
        }
        drop(rows);
        drop(statement);
        if self.faults.gaps > gaps {
            self.look_for_prune(conn)?;
        }
        Ok(())
    }

    /// A gap is no fault when its rows were pruned since the scan began; it is no answer either.
    fn look_for_prune(&mut self, conn: &Connection) -> Result<(), ReadError> {
        let now = floor(conn, &mut self.checker)?;
        let moved = now
            .is_ok_and(|now| now.is_some_and(|now| Some(&now.pruned) != self.floor.as_ref().map(|then| &then.pruned)));
        if moved { Err(ReadError::PrunedMeanwhile) } else { Ok(()) }
    }
}

impl Run {
    /// What of it was given to the reader so far.
    fn read(&self, order: Order) -> EraPart {
        let given = match order {
            Order::Asc => self.part.start..self.buffer.front().map_or(self.from, |row| row.seq),
            Order::Desc => self.buffer.front().map_or(self.to, |row| row.seq + 1)..self.part.end,
        };
        EraPart { era: self.era.clone(), part: self.part.clone(), given }
    }
}

impl Faults {
    fn note(&mut self, words: impl FnOnce() -> String) {
        if self.listed.len() < FAULTS_LISTED_MAX {
            self.listed.push(words());
        } else {
            self.more += 1;
        }
    }

    /// Rows `from..to` are not there.
    fn gap(&mut self, from: u64, to: u64) {
        if from < to {
            self.gaps += 1;
            self.note(|| SequenceFault::Missing { first: from, last: to - 1 }.to_string());
        }
    }
}

//! Reads the rows of one log in the order of a query.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use piperoll_format::merkle::TILE_WIDTH;
use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;
use piperoll_query::filter::{ErasedFit, Filter};

use super::cache::ScanCount;
use super::candidates::{Columns, Grounds, ODD_ROWS, times};
use super::catalog::{CatalogLog, CatalogRun};
use super::error::ReadError;
use super::remote_file::FileMeta;
use super::rows::{Reader, blocking};
use crate::row::{ArchivedRow, Content, LogId};

/// Maximum number of tiles that are read at the same time, and bytes of rows after which fewer are. A scan begins with one tile,
/// because a page needs few rows, and doubles the number with every read.
const WINDOW_TILES_MAX: usize = 16;
const WINDOW_BYTES: u64 = 2 * 1024 * 1024;
/// Maximum number of eras whose border rows are read.
const BORDER_ERAS_MAX: usize = 64;

/// Rows of a scan.
#[derive(Debug, Clone)]
pub struct ScanRange {
    pub log: LogId,
    /// Half-open range of positions.
    pub begin: Position,
    pub end: Position,
    pub order: Order,
    /// Rows that the scan may return, by seq.
    pub rows: Range<u64>,
    pub filter: Arc<Filter>,
    /// Rows that were erased after they were archived. The filter sees only their position.
    pub erased: Arc<BTreeSet<u64>>,
}

/// A scan of one log. Rows are verified against the log's tree; their MACs are not verified.
pub struct LogScan {
    reader: Reader,
    of_log: Arc<CatalogLog>,
    range: ScanRange,
    eras: Vec<EraScan>,
    window: usize,
    /// Erased rows of the range that the filter neither selects nor rules out.
    erased_apart: u64,
    scanned: u64,
    _count: ScanCount,
}

/// Rows of a run in one row group.
struct RunPart {
    run: CatalogRun,
    meta: Arc<FileMeta>,
    group: usize,
    /// Counted from the beginning of the row group.
    rows: Range<u64>,
}

/// Result of one step of a scan.
#[derive(Debug)]
pub enum ScanStep {
    Row(ArchivedRow),
    /// Rows were read; none of them may match.
    Read,
    /// There are no more rows.
    End,
}

/// Rows of one era, in the order of the scan.
#[derive(Default)]
struct EraScan {
    /// Position of the last row that was read or ruled out.
    consumed: Option<Position>,
    /// Runs that were not begun yet.
    runs: VecDeque<CatalogRun>,
    /// Parts of the current run that were not begun yet.
    parts: VecDeque<RunPart>,
    /// Rows of the current part that may match, ascending.
    pending: VecDeque<Range<u64>>,
    /// Average size of their bodies.
    body_bytes: u64,
    /// Rows that match.
    ready: VecDeque<ArchivedRow>,
}

impl LogScan {
    /// Begins a scan; `None` if the log is not in the archive.
    pub fn new(reader: Reader, range: ScanRange) -> Option<Self> {
        let of_log = Arc::clone(reader.catalog().log(&range.log)?);
        let mut eras: Vec<EraScan> = Vec::new();
        let mut last_era = None;
        for run in of_log.runs_in(&range.rows) {
            if last_era != Some(run.era) {
                last_era = Some(run.era);
                eras.push(EraScan::default());
            }
            let first = Position { timestamp: run.first, seq: run.from_seq };
            let last = Position { timestamp: run.last, seq: run.to_seq - 1 };
            let era = eras.last_mut().filter(|_| first < range.end && range.begin <= last);
            if let Some(era) = era {
                match range.order {
                    Order::Asc => era.runs.push_back(run.clone()),
                    Order::Desc => era.runs.push_front(run.clone()),
                }
            }
        }
        eras.retain(|era| !era.runs.is_empty());
        let count = ScanCount::new(reader.caches());
        Some(Self { reader, of_log, range, eras, window: 1, erased_apart: 0, scanned: 0, _count: count })
    }

    /// Erased rows of the range so far that are not returned, because only their content could decide whether the filter selects
    /// them.
    pub fn erased_apart(&self) -> u64 {
        self.erased_apart
    }

    /// Number of rows that have been read or ruled out.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Position up to which, in the order of the scan, every row has been read and returned; `None` if that is not known now, or after
    /// the last row.
    pub fn reached(&self) -> Option<Position> {
        let order = self.range.order;
        if self.eras.iter().any(|era| !era.ready.is_empty()) {
            return None;
        }
        let bounds = self.eras.iter().filter_map(|era| era.reached(order));
        let reached = bounds.reduce(|best, other| if order.before(&other, &best) { other } else { best })?;
        // A position outside of the range would lead a caller back.
        (self.range.begin..self.range.end).contains(&reached).then_some(reached)
    }

    /// Returns the next row that matches; `None` after the last one.
    ///
    /// # Errors
    /// As for [`LogScan::step`].
    pub async fn next(&mut self) -> Result<Option<ArchivedRow>, ReadError> {
        loop {
            match self.step().await? {
                ScanStep::Row(row) => return Ok(Some(row)),
                ScanStep::Read => {}
                ScanStep::End => return Ok(None),
            }
        }
    }

    /// Returns the next row that matches, or reads further rows. A step that is cancelled may lose rows.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if an object is not what its step says.
    pub async fn step(&mut self) -> Result<ScanStep, ReadError> {
        let order = self.range.order;
        self.eras.retain(|era| !era.is_finished());
        let bounds = self.eras.iter().enumerate().filter_map(|(index, era)| Some((index, era.bound(order)?)));
        let best = bounds.reduce(|best, other| if order.before(&other.1, &best.1) { other } else { best });
        let Some((index, _)) = best else { return Ok(ScanStep::End) };
        if let Some(row) = self.eras[index].ready.pop_front() {
            return Ok(ScanStep::Row(row));
        }
        self.fill(index).await.map_err(|error| self.reader.caches().explain(error))?;
        Ok(ScanStep::Read)
    }

    /// Reads more rows of an era.
    async fn fill(&mut self, index: usize) -> Result<(), ReadError> {
        if self.eras[index].pending.is_empty() {
            if let Some(part) = self.eras[index].parts.pop_front() {
                self.eras[index].body_bytes = part.meta.body_bytes(part.group);
                self.scanned += part.rows.end - part.rows.start;
                self.eras[index].pending = self.candidates(&part).await?.into();
            } else if let Some(run) = self.eras[index].runs.pop_front() {
                self.eras[index].parts = self.parts(run).await?;
            }
            return Ok(());
        }
        let bytes_of_tile = self.eras[index].body_bytes.saturating_mul(TILE_WIDTH).max(1);
        let bytes = WINDOW_BYTES.min(self.reader.caches().window_bytes());
        let room = usize::try_from(bytes / bytes_of_tile).unwrap_or(WINDOW_TILES_MAX).max(1);
        let (tiles, wanted) = self.eras[index].next_tiles(self.range.order, self.window.min(room));
        self.window = (self.window * 2).min(WINDOW_TILES_MAX);
        let rows = self.reader.shared_tiles(&self.range.log, &tiles).await?;
        let mut rows: Vec<ArchivedRow> = rows.into_iter().filter(|row| is_in(&wanted, row.seq)).collect();
        self.scanned += rows.len() as u64;
        if self.range.order == Order::Desc {
            rows.reverse();
        }
        if let Some(last) = rows.last() {
            self.eras[index].consumed = Some(Position { timestamp: last.timestamp, seq: last.seq });
        }
        rows.retain(|row| self.matches(row));
        self.eras[index].ready.extend(rows.into_iter().map(ArchivedRow::detached));
        Ok(())
    }

    fn matches(&mut self, row: &ArchivedRow) -> bool {
        let at = Position { timestamp: row.timestamp, seq: row.seq };
        if at < self.range.begin || self.range.end <= at {
            return false;
        }
        match &row.content {
            Content::Entry { body, .. } if !self.range.erased.contains(&row.seq) => {
                self.range.filter.is_empty()
                    || EntryView::parse(body).is_none_or(|entry| self.range.filter.matches(&entry))
            }
            _ => match self.range.filter.on_erased(self.range.log.node_id.as_str(), row.seq) {
                ErasedFit::Yes => true,
                ErasedFit::No => false,
                ErasedFit::Unknown => {
                    self.erased_apart += 1;
                    false
                }
            },
        }
    }

    /// Divides a run by row groups, in the order of the scan.
    async fn parts(&self, run: CatalogRun) -> Result<VecDeque<RunPart>, ReadError> {
        let meta = self.reader.footer(&run).await?;
        let begin = run.from_seq.max(self.range.rows.start);
        let end = run.to_seq.min(self.range.rows.end);
        let in_file = run.row + (begin - run.from_seq)..run.row + (end - run.from_seq);
        let of_group = |(group, rows)| RunPart { run: run.clone(), meta: Arc::clone(&meta), group, rows };
        let mut parts: VecDeque<RunPart> = meta.groups(in_file).into_iter().map(of_group).collect();
        if self.range.order == Order::Desc {
            parts.make_contiguous().reverse();
        }
        Ok(parts)
    }

    /// Rows of a part that may be in the range and match the filter, ascending.
    async fn candidates(&self, part: &RunPart) -> Result<Vec<Range<u64>>, ReadError> {
        let RunPart { run, meta, group, rows } = part;
        let (group, rows) = (*group, rows.clone());
        let first = Position { timestamp: run.first, seq: run.from_seq };
        let last = Position { timestamp: run.last, seq: run.to_seq - 1 };
        let is_inside = self.range.begin <= first && last < self.range.end;
        let mut names = BTreeSet::new();
        if !is_inside {
            names.insert("timestamp");
        }
        let grounds = self.grounds(meta, group).await?;
        let has_odd_rows = meta.has_odd_rows(group);
        let is_ruled_out = grounds.rule_out(&self.range.filter.condition());
        if is_ruled_out && has_odd_rows {
            // Erased rows are still counted or returned.
            names.extend(ODD_ROWS);
        } else if !is_ruled_out && !self.range.filter.is_empty() {
            names.extend(grounds.needed(&self.range.filter.condition()));
            if names.is_empty() {
                // A filter of positions needs no column, but the columns tell the rows apart. This one is small.
                names.insert("via");
            }
        }
        let to_seq = |row: u64| run.from_seq + (meta.first_of(group) + row - run.row);
        let erased = self.range.erased.range(to_seq(rows.start)..to_seq(rows.end)).copied();
        if is_ruled_out && !has_odd_rows {
            return Ok(with_rows(Vec::new(), erased));
        }
        if names.is_empty() {
            return Ok(std::iter::once(to_seq(rows.start)..to_seq(rows.end)).collect());
        }
        let _slot = self.reader.slot().await;
        let names: Vec<&'static str> = names.into_iter().collect();
        let columns = meta.columns(self.reader.store(), group, &names).await?;
        let (range, of_file, of_part) = (self.range.clone(), Arc::clone(meta), rows.clone());
        let first_seq = to_seq(rows.start);
        let select = move || {
            let mut selected = Vec::new();
            let mut from_seq = first_seq;
            for batch in of_file.decode(group, columns, of_part)? {
                let mut rows = 0..batch.num_rows();
                if !is_inside {
                    let times = times(&batch);
                    let at = |index: usize| Position {
                        timestamp: Timestamp::from_micros(times[index]),
                        seq: from_seq + index as u64,
                    };
                    let from = partition(times.len(), |index| at(index) < range.begin);
                    let to = partition(times.len(), |index| at(index) < range.end);
                    rows = from..to.max(from);
                }
                let places = if range.filter.is_empty() {
                    vec![rows]
                } else {
                    let columns = Columns::new(range.log.node_id.as_str(), &batch, from_seq, has_odd_rows);
                    columns.select((!is_ruled_out).then_some(range.filter.as_ref()), rows)
                };
                let of_batch = places.into_iter().filter(|rows| !rows.is_empty());
                selected.extend(of_batch.map(|rows| from_seq + rows.start as u64..from_seq + rows.end as u64));
                from_seq += batch.num_rows() as u64;
            }
            Ok(selected)
        };
        let selected = blocking(meta.file.name.clone(), select).await?;
        Ok(with_rows(selected, erased))
    }

    /// Collects knowledge about a row group before its columns are read. Bloom filters are read only if nothing else rules out the condition.
    async fn grounds<'m>(&self, meta: &'m FileMeta, group: usize) -> Result<Grounds<'m>, ReadError> {
        let mut grounds = Grounds { meta, group, blooms: HashMap::new() };
        let helpful = grounds.helpful_blooms(&self.range.filter.condition());
        for name in helpful {
            let bloom = self.reader.caches().bloom(meta, self.reader.store(), group, name).await?;
            grounds.blooms.extend(bloom.map(|bloom| (name, bloom)));
        }
        Ok(grounds)
    }

    /// Reads the rows around a range of positions: in every era the first and the last row, the last one before the range, and the
    /// first one after it. `None` if there are too many eras.
    ///
    /// # Errors
    /// As for [`LogScan::step`].
    pub async fn borders(&self, begin: Position, end: Position) -> Result<Option<Vec<ArchivedRow>>, ReadError> {
        let runs = self.of_log.runs_in(&self.range.rows);
        let mut seqs: Vec<u64> = Vec::new();
        let eras: Vec<&[CatalogRun]> = runs.chunk_by(|a, b| a.era == b.era).collect();
        if eras.len() > BORDER_ERAS_MAX {
            return Ok(None);
        }
        for era in eras {
            let (Some(first), Some(last)) = (era.first(), era.last()) else { continue };
            let first = first.from_seq.max(self.range.rows.start);
            let last = last.to_seq.min(self.range.rows.end) - 1;
            let explain = |error| self.reader.caches().explain(error);
            let from = self.locate(era, begin).await.map_err(explain)?;
            let to = self.locate(era, end).await.map_err(explain)?;
            let around = [Some(first), from.checked_sub(1), Some(to), Some(last)];
            let outside = |seq: &u64| (first..=last).contains(seq) && !(from..to).contains(seq);
            seqs.extend(around.into_iter().flatten().filter(outside));
        }
        seqs.sort_unstable();
        seqs.dedup();
        let mut tiles: Vec<u64> = seqs.iter().map(|seq| seq / TILE_WIDTH).collect();
        tiles.dedup();
        let rows = self.reader.tiles(&self.range.log, &tiles).await?;
        Ok(Some(rows.into_iter().filter(|row| seqs.binary_search(&row.seq).is_ok()).collect()))
    }

    /// Seq of the first row of an era that is not before a position.
    async fn locate(&self, era: &[CatalogRun], limit: Position) -> Result<u64, ReadError> {
        let at = era.partition_point(|run| Position { timestamp: run.last, seq: run.to_seq - 1 } < limit);
        let Some(run) = era.get(at) else { return Ok(era.last().map_or(0, |run| run.to_seq)) };
        if limit <= (Position { timestamp: run.first, seq: run.from_seq }) {
            return Ok(run.from_seq);
        }
        let meta = self.reader.footer(run).await?;
        for (group, rows) in meta.groups(run.row..run.row + (run.to_seq - run.from_seq)) {
            let _slot = self.reader.slot().await;
            let columns = meta.columns(self.reader.store(), group, &["timestamp"]).await?;
            let of_file = Arc::clone(&meta);
            let of_part = rows.clone();
            let batches = blocking(meta.file.name.clone(), move || of_file.decode(group, columns, of_part)).await?;
            let mut times = batches.iter().flat_map(times);
            for row in rows {
                let seq = run.from_seq + (meta.first_of(group) + row - run.row);
                let time = times.next().map(Timestamp::from_micros);
                if time.is_none_or(|timestamp| limit <= Position { timestamp, seq }) {
                    return Ok(seq);
                }
            }
        }
        Ok(run.to_seq)
    }
}

impl EraScan {
    fn is_finished(&self) -> bool {
        self.runs.is_empty() && self.parts.is_empty() && self.pending.is_empty() && self.ready.is_empty()
    }

    /// A position that is not after any row that is still to come.
    fn bound(&self, order: Order) -> Option<Position> {
        if let Some(row) = self.ready.front() {
            return Some(Position { timestamp: row.timestamp, seq: row.seq });
        }
        // The era's rows are in order, so nothing is known about a run that was begun except that the rest of the era follows.
        if !self.pending.is_empty() || !self.parts.is_empty() {
            return Some(match order {
                Order::Asc => Position { timestamp: Timestamp::MIN, seq: 0 },
                Order::Desc => Position { timestamp: Timestamp::MAX, seq: u64::MAX },
            });
        }
        self.runs.front().map(|run| run.edge(order))
    }

    /// Position up to which every row of the era has been read, if no row is ready.
    fn reached(&self, order: Order) -> Option<Position> {
        if !self.pending.is_empty() || !self.parts.is_empty() {
            return self.consumed;
        }
        // Every row before the next run has been read.
        self.runs.front().map(|run| match order {
            Order::Asc => Position { timestamp: run.first.plus_micros(-1), seq: u64::MAX },
            Order::Desc => Position { timestamp: run.last.plus_micros(1), seq: 0 },
        })
    }

    /// Takes the next candidates, up to a number of tiles. Returns the tiles, ascending, and the rows.
    fn next_tiles(&mut self, order: Order, tiles_max: usize) -> (Vec<u64>, Vec<Range<u64>>) {
        let (mut tiles, mut wanted): (Vec<u64>, Vec<Range<u64>>) = (Vec::new(), Vec::new());
        loop {
            let next = match order {
                Order::Asc => self.pending.pop_front(),
                Order::Desc => self.pending.pop_back(),
            };
            let Some(rows) = next else { break };
            let (tile, part, rest) = match order {
                Order::Asc => {
                    let tile = rows.start / TILE_WIDTH;
                    let cut = ((tile + 1) * TILE_WIDTH).min(rows.end);
                    (tile, rows.start..cut, cut..rows.end)
                }
                Order::Desc => {
                    let tile = (rows.end - 1) / TILE_WIDTH;
                    let cut = (tile * TILE_WIDTH).max(rows.start);
                    (tile, cut..rows.end, rows.start..cut)
                }
            };
            if tiles.last() != Some(&tile) && tiles.len() >= tiles_max {
                self.put_back(order, rows);
                break;
            }
            if tiles.last() != Some(&tile) {
                tiles.push(tile);
            }
            wanted.push(part);
            if !rest.is_empty() {
                self.put_back(order, rest);
            }
        }
        if order == Order::Desc {
            tiles.reverse();
            wanted.reverse();
        }
        (tiles, wanted)
    }

    fn put_back(&mut self, order: Order, rows: Range<u64>) {
        match order {
            Order::Asc => self.pending.push_front(rows),
            Order::Desc => self.pending.push_back(rows),
        }
    }
}

impl CatalogRun {
    /// Position of the first row of the run in an order.
    fn edge(&self, order: Order) -> Position {
        match order {
            Order::Asc => Position { timestamp: self.first, seq: self.from_seq },
            Order::Desc => Position { timestamp: self.last, seq: self.to_seq - 1 },
        }
    }
}

/// Adds single rows to ascending ranges. The times of the rows are checked when they are read.
fn with_rows(mut ranges: Vec<Range<u64>>, rows: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    for row in rows {
        let at = ranges.partition_point(|range| range.end <= row);
        if ranges.get(at).is_none_or(|range| !range.contains(&row)) {
            ranges.insert(at, row..row + 1);
        }
    }
    ranges
}

/// Whether one of the ranges, which ascend, contains a row.
fn is_in(ranges: &[Range<u64>], seq: u64) -> bool {
    let at = ranges.partition_point(|rows| rows.end <= seq);
    ranges.get(at).is_some_and(|rows| rows.contains(&seq))
}

/// Number of leading indices that fulfil a condition, which holds for none after the first that does not.
fn partition(len: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

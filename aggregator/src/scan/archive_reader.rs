//! Reads rows of one log from the archive: verifies them with the node's keys, and shows which rows of the range they are.
//!
//! The archive's own code verifies that each row leads to a checkpoint; here, the checkpoint and the MACs are verified.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use piperoll_archive::read::{ERASURES_FILTER, Erasures, LogScan, ReadError, ScanRange, ScanStep};
use piperoll_archive::row::{ArchivedRow, Content};
use piperoll_format::completeness::{Coverage, ProvenRow};
use piperoll_format::entry::Prefix;
use piperoll_format::ids::Generation;
use piperoll_format::order::{Key, Order, Position};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{Claim, Integrity, RowChecker};
use piperoll_protocol::node::ScanRequest;
use piperoll_query::filter::Filter;
use tokio::sync::mpsc;

use crate::access::scope::Scope;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;
use crate::scan::node_reader::{NodeCounters, NodeReader};
use crate::scan::plan::{ArchivedRows, NodeRequest};
use crate::scan::position_range::{positions, up_to};
use crate::scan::proof_verifier::RangeCompleteness;
use crate::scan::verified_row::{BorderRow, ErasureStatement, VerifiedRow};

/// Rows and bytes of one batch, and number of batches that wait.
const BATCH_ROWS: usize = 128;
const BATCH_BYTES: usize = 128 * 1024;
const BATCHES_WAITING: usize = 2;
/// Maximum number of erasures that are read from a node because they are not archived yet.
const ERASURES_MAX: u64 = 100_000;

/// Reader of one log's archived rows.
pub(crate) struct ArchiveReader {
    checker: RowChecker,
    node_id: piperoll_format::ids::NodeId,
    pub(crate) generation: Generation,
    pub(crate) rows: ArchivedRows,
    scope: Scope,
    incoming: mpsc::Receiver<Message>,
    ready: VecDeque<Item>,
    progress: Arc<Progress>,
    /// Number of rows that the scan had read when `advances` was last called, and the time at which that number last grew.
    advanced: (u64, Instant),
    idle: Duration,
    /// `None` if the query has a filter.
    shown: Option<Coverage>,
    positions: Range<Position>,
    /// End of the rows that the answer covers, by seq.
    end_seq: u64,
    order: Order,
    last: Option<Position>,
    pub(crate) counters: NodeCounters,
    /// Rows adjacent to the range, after the last row.
    pub(crate) borders: Vec<BorderRow>,
}

/// Progress of a scan, for a reader that waits for its rows.
#[derive(Default)]
struct Progress {
    scanned: AtomicU64,
    reached: Mutex<Option<Position>>,
}

/// A row, and for an erased row the entry that records the erasure.
struct Item {
    row: ArchivedRow,
    erasure: Option<Arc<ArchivedRow>>,
}

enum Message {
    Rows(Vec<Item>),
    End {
        more: bool,
        erased_apart: u64,
        borders: Option<Vec<Item>>,
    },
    Failed(ReadError),
    /// The node did not say which rows it has erased since they were archived.
    NoErasures(String),
}

impl ArchiveReader {
    /// Begins to read.
    pub(crate) fn open(
        member: &Arc<NodeHandle>,
        asked: &NodeRequest,
        rows: &ArchivedRows,
        limits: &FanOutLimits,
    ) -> Result<Self, Failure> {
        let error = |message: String| Failure::Error(message);
        let request = &asked.request;
        let filter = Filter::parse_stored(&request.filter, Timestamp::MIN).map_err(|e| error(e.to_string()))?;
        let is_unfiltered = filter.is_empty();
        let positions = positions(request);
        let mut seqs = rows.part.seqs.clone();
        seqs.end = seqs.end.min(request.head.map_or(u64::MAX, |head| head.saturating_add(1)));
        seqs.start = seqs.start.max(request.from_seq.unwrap_or(0)).min(seqs.end);
        let end_seq = seqs.end;
        let range = ScanRange {
            log: rows.log.clone(),
            begin: positions.start,
            end: positions.end,
            order: request.order,
            rows: seqs,
            filter: Arc::new(filter),
            erased: Arc::default(),
        };
        let of_log = rows.reader.catalog().log(&rows.log);
        let of_log = of_log.ok_or_else(|| error(format!("the archive has no rows of {}", rows.log)))?;
        for range in of_log.ranges().iter().filter(|range| range.from_seq < rows.part.seqs.end) {
            member.witness.opened_archived(&range.checkpoint, &rows.log).map_err(error)?;
        }
        let mut checker = RowChecker::new(member.node.ring.clone(), rows.log.generation);
        checker.know_epochs(of_log.epochs().to_vec());
        let (send, incoming) = mpsc::channel(BATCHES_WAITING);
        let progress = Arc::new(Progress::default());
        let task = Task {
            rows: rows.clone(),
            range,
            limit: request.limit,
            with_borders: is_unfiltered,
            progress: Arc::clone(&progress),
            erasures: Erasures::new(),
            searched: 0,
            is_superseded: asked.aside.is_some(),
        };
        tokio::spawn(task.run(Arc::clone(member), *limits, send));
        Ok(Self {
            checker,
            node_id: member.node.id.clone(),
            generation: rows.log.generation,
            rows: rows.clone(),
            scope: asked.scope.clone(),
            incoming,
            ready: VecDeque::new(),
            progress,
            advanced: (0, Instant::now()),
            idle: limits.idle,
            shown: is_unfiltered.then(Coverage::default),
            positions,
            end_seq,
            order: request.order,
            last: None,
            counters: NodeCounters::default(),
            borders: Vec::new(),
        })
    }

    /// Returns the next row; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<VerifiedRow>, Failure> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                if let Some(row) = self.verified(item) {
                    return Ok(Some(row));
                }
                continue;
            }
            if self.counters.ended {
                return Ok(None);
            }
            match self.incoming.recv().await {
                Some(Message::Rows(rows)) => self.ready.extend(rows),
                Some(Message::End { more, erased_apart, borders }) => {
                    self.counters.ended = true;
                    self.counters.more = more;
                    self.counters.erased = if self.scope.text().is_some() { 0 } else { erased_apart };
                    self.counters.proof = self.conclude(borders);
                }
                Some(Message::Failed(error)) => {
                    return Err(if error.is_violation() {
                        Failure::Error(format!("the archive was changed: {error}"))
                    } else {
                        Failure::Unreachable { reason: format!("the archive cannot be read: {error}"), tcp: false }
                    });
                }
                Some(Message::NoErasures(reason)) => {
                    let reason = format!(
                        "archived rows are withheld, because the node did not say which of them it erased: {reason}"
                    );
                    return Err(Failure::Unreachable { reason, tcp: false });
                }
                None => return Err(Failure::Error("reading the archive was aborted".to_owned())),
            }
        }
    }

    /// Verifies a row; `None` if it cannot be shown.
    fn verified(&mut self, item: Item) -> Option<VerifiedRow> {
        let ArchivedRow { seq, era, timestamp, content } = item.row;
        let (integrity, reason, erased, body, mac, epoch) = match content {
            Content::Entry { epoch, body, mac } => {
                let checked = self.checker.check(&Claim { seq, timestamp, epoch, mac: &mac, body: &body });
                (checked.integrity, checked.reason, None, body, Bytes::copy_from_slice(&mac), epoch)
            }
            Content::Erased { leaf } => {
                let Some((gone, body, mac, epoch)) = item.erasure.as_ref().and_then(|entry| self.statement(entry))
                else {
                    self.fault(format!(
                        "row {seq} is erased, but no entry declares that (the entry may not be archived, and the node may not answer)"
                    ));
                    return None;
                };
                let said = &gone.said;
                if (said.seq, said.leaf, said.era, said.timestamp) != (seq, leaf, era, timestamp) {
                    self.fault(format!("row {seq} is erased, but the entry that records that is about another row"));
                    return None;
                }
                (Integrity::Erased, None, Some(gone), body, mac, epoch)
            }
        };
        self.counters.rows += 1;
        self.counters.witnessed += 1;
        match integrity {
            Integrity::Ok | Integrity::Erased => self.counters.verified += 1,
            Integrity::UnknownKey => self.counters.unknown_key += 1,
            Integrity::Violation => self.counters.invalid += 1,
        }
        if let (Some(shown), Integrity::Ok | Integrity::Erased) = (&mut self.shown, integrity) {
            shown.row(ProvenRow { seq, era, timestamp });
        }
        self.last = Some(Position { timestamp, seq });
        let key = Key { timestamp, node_id: self.node_id.clone(), seq };
        let withheld = !self.scope.admits(integrity, &body);
        let witnessed = true;
        Some(VerifiedRow { key, body, mac, epoch, integrity, witnessed, reason, erased, withheld, archived: true })
    }

    /// Returns what an authentic entry says about an erased row, with the bytes of the entry.
    fn statement(&mut self, entry: &ArchivedRow) -> Option<(Arc<ErasureStatement>, Bytes, Bytes, u32)> {
        let Content::Entry { epoch, body, mac } = &entry.content else { return None };
        let claim = Claim { seq: entry.seq, timestamp: entry.timestamp, epoch: *epoch, mac, body };
        if self.checker.check(&claim).integrity != Integrity::Ok {
            return None;
        }
        let Some(Statement::Erased(said)) = Statement::read(body) else { return None };
        let gone = Arc::new(ErasureStatement { said, entry_seq: entry.seq });
        Some((gone, body.clone(), Bytes::copy_from_slice(mac), *epoch))
    }

    /// Determines what the complete answer proves about the rows of the archive.
    fn conclude(&mut self, borders: Option<Vec<Item>>) -> RangeCompleteness {
        let Some(mut shown) = self.shown.take() else {
            return RangeCompleteness::Not("the query has a filter".to_owned());
        };
        let Some(borders) = borders else {
            return RangeCompleteness::Not("the archive has too many eras of this log".to_owned());
        };
        for item in borders {
            let ArchivedRow { seq, era, timestamp, .. } = item.row;
            let leaf = item.row.leaf();
            // Rows that fail verification and erased rows without a statement do not prove anything.
            let border = match &item.row.content {
                Content::Entry { epoch, body, mac } => {
                    let claim = Claim { seq, timestamp, epoch: *epoch, mac, body };
                    let (body, mac) = (body.clone(), Bytes::copy_from_slice(mac));
                    let is_sound = self.checker.check(&claim).integrity == Integrity::Ok;
                    is_sound.then_some(BorderRow { seq, leaf, body, mac, erased_under: None })
                }
                Content::Erased { .. } => {
                    let said = item.erasure.as_ref().and_then(|entry| self.statement(entry));
                    let is_of_row = |gone: &ErasureStatement| (gone.said.seq, gone.said.timestamp) == (seq, timestamp);
                    said.filter(|(gone, ..)| is_of_row(gone)).map(|(gone, body, mac, _)| {
                        let erased_under = Some(gone.entry_seq);
                        BorderRow { seq, leaf, body, mac, erased_under }
                    })
                }
            };
            if let Some(border) = border {
                shown.border(ProvenRow { seq, era, timestamp });
                self.borders.push(border);
            }
        }
        let last = self.last.filter(|_| self.counters.more);
        let Range { start: begin, end } = up_to(&self.positions, self.order, last);
        match shown.is_whole(begin, end, self.end_seq) {
            Ok(()) => RangeCompleteness::Whole,
            Err(problem) => RangeCompleteness::Not(format!("the archive: {problem}")),
        }
    }

    fn fault(&mut self, message: String) {
        self.counters.note_fault(format!("the archive: {message}"));
    }

    /// Whether the scan is still reading, although it has found nothing for a while.
    pub(crate) fn advances(&mut self) -> bool {
        let scanned = self.progress.scanned.load(Ordering::Relaxed);
        if scanned > self.advanced.0 {
            self.advanced = (scanned, Instant::now());
        }
        scanned > 0 && self.advanced.1.elapsed() < self.idle
    }

    /// Returns the rows that were read and not returned yet.
    pub(crate) fn rest(&mut self) -> Vec<VerifiedRow> {
        while let Ok(Message::Rows(rows)) = self.incoming.try_recv() {
            self.ready.extend(rows);
        }
        let rest = std::mem::take(&mut self.ready);
        rest.into_iter().filter_map(|item| self.verified(item)).collect()
    }

    /// Stops reading early and returns the position that the scan has reached; `None` if it is not known.
    pub(crate) fn stop_here(&mut self) -> Option<Key> {
        let reached = *self.progress.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let Position { timestamp, seq } = reached?;
        self.counters.ended = true;
        self.counters.more = true;
        self.counters.proof = RangeCompleteness::Not("the query has a filter".to_owned());
        Some(Key { timestamp, node_id: self.node_id.clone(), seq })
    }
}

/// Reads rows ahead. It ends when its reader is dropped.
struct Task {
    rows: ArchivedRows,
    range: ScanRange,
    limit: Option<u64>,
    with_borders: bool,
    progress: Arc<Progress>,
    /// Entries that declare erasures, in the archive and after it.
    erasures: Erasures,
    /// Progress of the search for erasures, which precedes the scan.
    searched: u64,
    /// Whether the log was replaced, so that the node can no longer read it.
    is_superseded: bool,
}

impl Task {
    async fn run(mut self, member: Arc<NodeHandle>, limits: FanOutLimits, send: mpsc::Sender<Message>) {
        let read = self.read(&member, &limits, &send);
        let result = tokio::select! {
            result = read => result,
            () = send.closed() => return,
        };
        if let Some(message) = result.unwrap_or_else(|error| Some(Message::Failed(error))) {
            let _ = send.send(message).await;
        }
    }

    /// Sends all rows. Returns the last message; `None` if the reader was dropped.
    async fn read(
        &mut self,
        member: &Arc<NodeHandle>,
        limits: &FanOutLimits,
        send: &mpsc::Sender<Message>,
    ) -> Result<Option<Message>, ReadError> {
        let searched = |rows: u64| self.progress.scanned.store(rows, Ordering::Relaxed);
        let archived = self.rows.reader.find_erasures(&self.rows.log, searched);
        // A node that did not answer the query is not asked again.
        if self.rows.part.instead_of_node.is_none() && !self.is_superseded {
            let (archived, live) = tokio::join!(archived, live_erasures(member, &self.rows, limits));
            archived?;
            match live {
                Ok(live) => self.rows.reader.remember_erasures(&self.rows.log, live).await?,
                Err(failure) => return Ok(Some(Message::NoErasures(failure.reason().to_owned()))),
            }
        } else {
            archived.await?;
        }
        self.erasures = self.rows.reader.known_erasures(&self.rows.log).as_ref().clone();
        self.searched = self.progress.scanned.load(Ordering::Relaxed);
        self.range.erased = Arc::new(self.erasures.keys().copied().collect());
        let Some(mut scan) = LogScan::new(self.rows.reader.clone(), self.range.clone()) else {
            return Err(ReadError::Aborted);
        };
        let scan = &mut scan;
        let (mut batch, mut bytes, mut rows) = (Vec::new(), 0, 0);
        let mut last = None;
        let more = loop {
            let step = scan.step().await;
            self.note_progress(scan);
            let row = match step {
                Ok(ScanStep::Row(row)) => row,
                Ok(ScanStep::Read) => {
                    // Rows are sent before the position after them is reported, and a reader does not wait for a full batch.
                    bytes = 0;
                    if !batch.is_empty() && send.send(Message::Rows(std::mem::take(&mut batch))).await.is_err() {
                        return Ok(None);
                    }
                    self.note_reached(scan);
                    continue;
                }
                Ok(ScanStep::End) => break false,
                Err(error) => {
                    // The rows before the fault are still valid.
                    let _ = send.send(Message::Rows(batch)).await;
                    return Err(error);
                }
            };
            if self.limit.is_some_and(|limit| rows >= limit) {
                break true;
            }
            rows += 1;
            bytes += row.bytes();
            last = Some(Position { timestamp: row.timestamp, seq: row.seq });
            batch.push(self.item(row));
            if batch.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                bytes = 0;
                if send.send(Message::Rows(std::mem::take(&mut batch))).await.is_err() {
                    return Ok(None);
                }
            }
        };
        if !batch.is_empty() && send.send(Message::Rows(batch)).await.is_err() {
            return Ok(None);
        }
        let mut borders = Some(Vec::new());
        if self.with_borders {
            let whole = self.range.begin..self.range.end;
            let Range { start: begin, end } = up_to(&whole, self.range.order, last.filter(|_| more));
            let rows = scan.borders(begin, end).await?;
            borders = rows.map(|rows| rows.into_iter().map(|row| self.item(row)).collect());
        }
        Ok(Some(Message::End { more, erased_apart: scan.erased_apart(), borders }))
    }

    fn note_progress(&self, scan: &LogScan) {
        self.progress.scanned.store(self.searched.saturating_add(scan.scanned()), Ordering::Relaxed);
    }

    /// Called while no row waits to be sent.
    fn note_reached(&self, scan: &LogScan) {
        if let Some(reached) = scan.reached() {
            *self.progress.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached);
        }
    }

    /// A row with the entry that declares its erasure, if there is one. The content of a row that was erased after it was archived is
    /// dropped here.
    fn item(&self, row: ArchivedRow) -> Item {
        let erasure = self.erasures.get(&row.seq).cloned();
        match erasure {
            Some(erasure) => {
                let content = Content::Erased { leaf: row.leaf() };
                Item { row: ArchivedRow { content, ..row }, erasure: Some(erasure) }
            }
            None => Item { row, erasure: None },
        }
    }
}

/// Entries that the node recorded after its archived rows and that declare erasures.
async fn live_erasures(
    member: &Arc<NodeHandle>,
    rows: &ArchivedRows,
    limits: &FanOutLimits,
) -> Result<Vec<ArchivedRow>, Failure> {
    let mut found = Vec::new();
    let archived_to =
        rows.reader.catalog().log(&rows.log).and_then(|log| log.ranges().last()).map_or(0, |range| range.to_seq);
    let request = ScanRequest {
        filter: ERASURES_FILTER.to_owned(),
        from: Timestamp::MIN,
        to: Timestamp::MAX,
        order: Order::Asc,
        limit: Some(ERASURES_MAX),
        after: None,
        from_seq: Some(archived_to),
        head: None,
        generation: Some(rows.log.generation),
        prove: None,
        count: None,
        follow: false,
    };
    let asked =
        NodeRequest { request, pinned: None, all_there: true, scope: Scope::default(), aside: None, archived: None };
    let mut reader = NodeReader::open(member, &asked, limits, Channel::Own).await?;
    while let Some(row) = reader.next().await? {
        let mac = <[u8; 32]>::try_from(row.mac.as_ref());
        if let (Integrity::Ok, Ok(mac), Some(prefix)) = (row.integrity, mac, Prefix::parse(&row.body)) {
            let content = Content::Entry { epoch: row.epoch, body: row.body.clone(), mac };
            let (seq, era, timestamp) = (row.key.seq, prefix.era, prefix.timestamp);
            found.push(ArchivedRow { seq, era, timestamp, content });
        }
    }
    if reader.counters.more {
        return Err(Failure::Error(format!("it has more than {ERASURES_MAX} erasures that are not archived")));
    }
    Ok(found)
}

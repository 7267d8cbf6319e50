//! Reads one node's answer: verifies frames and rows, and determines the node's status.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;
use piperoll_format::completeness::ProvenRow;
use piperoll_format::merkle::{RangeProof, leaf_hash};
use piperoll_format::order::{Key, Order, Position};
use piperoll_format::statement::Statement;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::{Checked, Claim, Integrity, RowChecker};
use piperoll_format::view::EntryView;
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::frame::{EntryFrame, Frame, decode};
use piperoll_protocol::node::{Mark, ScanRequest, StreamEnd, StreamHead, peer_path};
use piperoll_query::filter::{ErasedFit, FILTER_VERSION, Filter};
use piperoll_query::stats::{Axis, Counter, Facet, Plan};

use crate::access::scope::Scope;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;
use crate::scan::plan::NodeRequest;
use crate::scan::proof_verifier::{BORDERS_MAX, ProofVerifier, RangeCompleteness};
use crate::scan::verified_row::{BorderRow, ErasureStatement, VerifiedRow};

/// Reader of one node's answer.
pub(crate) struct NodeReader {
    member: Arc<NodeHandle>,
    body: Incoming,
    buffer: BytesMut,
    checker: RowChecker,
    node_id: piperoll_format::ids::NodeId,
    pub(crate) head: StreamHead,
    idle: Duration,
    order: Order,
    limit: Option<u64>,
    unfiltered: bool,
    /// The filter of the query, set if the node does not support the filter's language version. The node then returns more rows,
    /// and the rows that do not match this filter are skipped here.
    sieve: Option<Filter>,
    scope: Scope,
    /// Key of the last row. Its seq and `last_era` are used to find gaps.
    last: Option<Key>,
    last_era: Option<u32>,
    /// Verifies rows against the witnessed checkpoint; `None` if nothing was witnessed or the node only counts.
    proving: Option<ProofVerifier>,
    /// Progress of a node that is followed. A mark arrives after the rows that it covers.
    pub(crate) mark: Option<Mark>,
    /// Counts from the node, if it was asked to count.
    pub(crate) counted: Option<Counter>,
    ready: VecDeque<VerifiedRow>,
    /// Number of rows that the node has read, according to its reports, and the time at which that number last grew.
    scanned: u64,
    advanced: Instant,
    /// Position up to which the node has checked every row, according to its reports.
    reached: Option<Position>,
    /// Valid rows adjacent to the range: a few for every era.
    pub(crate) borders: Vec<BorderRow>,
    pub(crate) counters: NodeCounters,
}

/// Counts and findings from the part of one node's answer that has been read so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeCounters {
    pub(crate) rows: u64,
    pub(crate) verified: u64,
    pub(crate) invalid: u64,
    pub(crate) unknown_key: u64,
    pub(crate) witnessed: u64,
    pub(crate) proof: RangeCompleteness,
    /// Messages about gaps, rows out of order, and faults that the node itself found.
    pub(crate) faults: Vec<String>,
    pub(crate) more: bool,
    pub(crate) ended: bool,
    /// Message, set if the range reaches back to rows that the node no longer has.
    pub(crate) pruned: Option<String>,
    /// Seq of the first retained row, if rows were pruned.
    pub(crate) floor: Option<u64>,
    /// Number of erased rows of the range that the node did not send, because only their content could decide whether the
    /// filter selects them; as reported by the node.
    pub(crate) erased: u64,
    /// Whether it is shown that no witnessed row from the log start on is missing, although older rows were pruned.
    pub(crate) retained_whole: bool,
    /// Whether the log start changed between two parts of the answer.
    pub(crate) start_moved: bool,
}

impl NodeCounters {
    /// Adds a fault, unless it is known or there are too many.
    pub(crate) fn note_fault(&mut self, message: String) {
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&message) {
            self.faults.push(message);
        }
    }

    /// Combines this part of an answer with the part that follows it.
    pub(crate) fn and(self, next: Self) -> Self {
        let mut faults = self.faults;
        for fault in next.faults {
            if faults.len() < FAULTS_MAX && !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        Self {
            rows: self.rows + next.rows,
            verified: self.verified + next.verified,
            invalid: self.invalid + next.invalid,
            unknown_key: self.unknown_key + next.unknown_key,
            witnessed: self.witnessed + next.witnessed,
            // Two complete parts are complete together, because the second one begins after the last row of the first.
            proof: self.proof.and(next.proof),
            faults,
            more: next.more,
            ended: next.ended,
            pruned: self.pruned.or(next.pruned),
            floor: self.floor.or(next.floor),
            // Each part reports the number for the whole range.
            erased: self.erased.max(next.erased),
            retained_whole: self.retained_whole && next.retained_whole,
            start_moved: self.start_moved || next.start_moved || self.floor != next.floor,
        }
    }
}

/// Number of entries that a node itself records while it stops, after the last row that an operator saw.
const STOP_ENTRIES: u64 = 1;

/// Returns a message if the log in the folder of a node that left does not end with `last`, its last row according to the roster.
fn against_last(head: &StreamHead, last: u64) -> Option<String> {
    let rows = head.head_seq.map_or(0, |head| head.saturating_add(1));
    if rows <= last {
        return Some(format!(
            "according to the roster the node's last row is {last}, but its folder has only {rows} rows: the rest are missing"
        ));
    }
    let beyond = rows - 1 > last.saturating_add(STOP_ENTRIES);
    beyond
        .then(|| format!("according to the roster the node's last row is {last}, but its folder has {rows} rows: some were added later"))
}

/// Maximum time for which a node may report progress without reading any further rows. Skipping blocks by the index
/// takes far less.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
/// Reason why a count is not proven.
pub(crate) const COUNTED_THERE: &str =
    "the nodes counted from their indexes; a count with `verify` reads and verifies every row";
/// Maximum number of faults listed for one node in one answer.
const FAULTS_MAX: usize = 20;
/// Maximum length of one fault in characters: the node chooses the text, and an answer repeats it.
const FAULT_CHARS_MAX: usize = 512;

/// Adapts a request to the node's version. Returns the request to send and, if the node cannot apply the filter, the filter that
/// its rows must be checked against here. New syntax is sent only to a node that has reported that it supports that syntax.
async fn fitting(member: &NodeHandle, request: &ScanRequest) -> Result<(ScanRequest, Option<Filter>), Failure> {
    let needs_more = |plan: &Plan| plan.facets.contains(&Facet::Verb) || plan.axis != Axis::Recorded;
    let counts_more = request.count.as_ref().is_some_and(needs_more);
    // This aggregator wrote the filter text, so the text is in its stored form.
    let filter = Filter::parse_stored(&request.filter, Timestamp::MIN).map_err(|e| Failure::Error(e.to_string()))?;
    let needs_version_2 = filter.in_version_1().is_none();
    if !(needs_version_2 || counts_more) || member.filter_version().await? >= FILTER_VERSION {
        return Ok((request.clone(), None));
    }
    if request.count.is_some() {
        let message = "upgrade needed: the node runs a version that cannot count this; statistics with `verify` read its rows instead";
        return Err(Failure::Error(message.to_owned()));
    }
    let widened = filter.widened_to_version_1();
    // Request rows without a limit: it is unknown how many rows the node has to return until enough of them match.
    Ok((ScanRequest { filter: widened.to_string(), limit: None, ..request.clone() }, Some(filter)))
}

impl NodeReader {
    /// Sends the request and waits for the first frame, which identifies the node and its log.
    pub(crate) async fn open(
        member: &Arc<NodeHandle>,
        asked: &NodeRequest,
        limits: &FanOutLimits,
        lane: Channel,
    ) -> Result<Self, Failure> {
        let (request, sieve) = fitting(member, &asked.request).await?;
        let request = &request;
        let started = Instant::now();
        let body = Bytes::from(serde_json::to_vec(request).unwrap_or_default());
        let response = member.link.request(lane, Method::POST, peer_path::SCAN, body, limits.first_row).await?;
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        let left = limits.first_row.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let Some(Frame::Head(head)) = next_frame(&mut body, &mut buffer, left).await? else {
            return Err(Failure::Error("the answer is not a Piperoll stream".to_owned()));
        };
        let ring = &member.node.ring;
        if &head.node_id != ring.node_id() || &head.cluster != ring.cluster() {
            return Err(Failure::Error(format!("the node identifies itself as {}/{}", head.cluster, head.node_id)));
        }
        member.seen();
        let mut faults: Vec<String> = head.fault.iter().cloned().chain(member.alarm()).collect();
        if let Some(last) = member.node.last_seq.filter(|_| member.has_left() && asked.aside.is_none()) {
            faults.extend(against_last(&head, last));
        }
        if let Some(pinned) = &asked.pinned {
            let rows = head.head_seq.map_or(0, |head| head.saturating_add(1));
            if pinned.generation != head.generation {
                faults.push(format!(
                    "the node answers from the log of generation {}, but generation {} was witnessed",
                    head.generation, pinned.generation
                ));
            } else if rows < pinned.size {
                faults.push(format!("{} rows were witnessed, but the node reports only {rows}", pinned.size));
            }
        }
        let pinned = asked.pinned.clone().filter(|pinned| pinned.generation == head.generation);
        let proving = pinned.filter(|_| request.count.is_none()).map(|pinned| ProofVerifier::new(pinned, request));
        let mut checker = RowChecker::new(ring.clone(), head.generation);
        if head.epochs.is_sorted_by(|a, b| a.first_seq < b.first_seq && a.epoch < b.epoch) {
            checker.know_epochs(head.epochs.clone());
        } else {
            faults.push("the node reports decreasing key epochs".to_owned());
        }
        Ok(Self {
            member: Arc::clone(member),
            body,
            buffer,
            checker,
            node_id: head.node_id.clone(),
            counters: NodeCounters {
                faults,
                floor: head.pruned.map(|pruned| pruned.to_seq),
                pruned: reaches_pruned(&head, asked),
                erased: erased_apart(&head, asked),
                ..NodeCounters::default()
            },
            limit: request.limit,
            head,
            idle: limits.idle,
            order: request.order,
            unfiltered: request.filter.is_empty(),
            sieve,
            scope: asked.scope.clone(),
            last: None,
            last_era: None,
            proving,
            counted: request.count.clone().map(Counter::new),
            mark: None,
            ready: VecDeque::new(),
            scanned: 0,
            advanced: Instant::now(),
            reached: None,
            borders: Vec::new(),
        })
    }

    /// Returns the next row; `None` after the node's end record, or when a node that is followed reports its progress. Time limits count
    /// only while waiting for the network.
    pub(crate) async fn next(&mut self) -> Result<Option<VerifiedRow>, Failure> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                if self.is_wanted(&row) {
                    return Ok(Some(row));
                }
                continue;
            }
            if self.counters.ended {
                return Ok(None);
            }
            match next_frame(&mut self.body, &mut self.buffer, self.idle).await? {
                Some(Frame::Entry(entry)) => {
                    let checked = self.checker.check(&claim(&entry));
                    self.entry(entry, &checked, None);
                }
                Some(Frame::Erased(seq, entry)) => self.erased(seq, entry),
                Some(Frame::Border(entry)) => self.border(&entry),
                Some(Frame::ErasedBorder(seq, entry)) => self.erased_border(seq, entry),
                Some(Frame::Proof(proof)) => self.proof(&proof),
                Some(Frame::Count(part)) => {
                    let plan = self.counted.as_mut();
                    plan.ok_or_else(|| Failure::Error("the node sent counts that were not requested".to_owned()))?
                        .add_part(part);
                }
                Some(Frame::Mark(mark)) => {
                    // Rows are not proven while following, so every row before the mark has already been returned.
                    self.mark = Some(mark);
                    // The rows after the mark are read by a separate scan, which counts from the beginning.
                    (self.scanned, self.advanced) = (0, Instant::now());
                    return Ok(None);
                }
                Some(Frame::Progress(scanned, reached)) => {
                    self.release();
                    self.reached = reached.or(self.reached);
                    // Do not wait for ever for a node that reports progress without advancing.
                    if scanned > self.scanned {
                        (self.scanned, self.advanced) = (scanned, Instant::now());
                    } else if self.advanced.elapsed() > STANDSTILL_MAX {
                        let message = format!("the node made no progress for {} s", STANDSTILL_MAX.as_secs());
                        return Err(Failure::Timeout(message));
                    }
                }
                Some(Frame::End(end)) => self.end(end),
                Some(Frame::Head(_)) => {
                    return Err(Failure::Error("the stream contains a second head record".to_owned()));
                }
                None => return Err(Failure::Broken("the stream ended without its end record".to_owned())),
            }
            if self.proving.as_ref().is_some_and(ProofVerifier::is_overfull) || self.borders.len() > BORDERS_MAX {
                return Err(Failure::Error("the node sent too many rows without their proofs".to_owned()));
            }
        }
    }

    /// Whether a row matches the request; needed because a node of an earlier version is sent a wider filter. As on the
    /// nodes, a row that cannot be trusted always matches, and an erased row matches if the filter selects its seq.
    fn is_wanted(&mut self, row: &VerifiedRow) -> bool {
        let Some(sieve) = &self.sieve else { return true };
        match row.integrity {
            Integrity::Ok => EntryView::parse(&row.body).is_none_or(|entry| sieve.matches(&entry)),
            Integrity::Erased => match sieve.on_erased(self.node_id.as_str(), row.key.seq) {
                ErasedFit::Yes => true,
                ErasedFit::No => false,
                ErasedFit::Unknown => {
                    self.counters.erased += 1;
                    false
                }
            },
            Integrity::Violation | Integrity::UnknownKey => true,
        }
    }

    /// Whether recent progress reports show that the node is still reading, although it has found nothing for a while.
    pub(crate) fn advances(&self) -> bool {
        self.scanned > 0 && self.advanced.elapsed() < self.idle
    }

    /// Stops reading early and returns the position that the node has reached; `None` if the node did not report one.
    pub(crate) fn stop_here(&mut self) -> Option<Key> {
        let Position { timestamp, seq } = self.reached?;
        self.counters.ended = true;
        self.counters.more = true;
        self.counters.proof = RangeCompleteness::Not("the query has a filter".to_owned());
        Some(Key { timestamp, node_id: self.node_id.clone(), seq })
    }

    /// Returns the rows that arrived before a failure and were still waiting for their proof.
    pub(crate) fn rest(&mut self) -> impl Iterator<Item = VerifiedRow> + use<> {
        let waiting = self.proving.as_mut().map(|proving| proving.release().0).unwrap_or_default();
        let rest: Vec<VerifiedRow> = std::mem::take(&mut self.ready).into_iter().chain(waiting).collect();
        let wanted: Vec<VerifiedRow> = rest.into_iter().filter(|row| self.is_wanted(row)).collect();
        wanted.into_iter()
    }

    /// Processes an erased row. The row counts as erased only if an authentic entry names it.
    fn erased(&mut self, seq: u64, statement: EntryFrame) {
        let checked = self.checker.check(&claim(&statement));
        let said = Statement::read(&statement.body).filter(|_| checked.integrity == Integrity::Ok);
        let place = statement.place;
        match said {
            Some(Statement::Erased(said)) if said.seq == seq && seq < statement.seq => {
                let checked = Checked { integrity: Integrity::Erased, reason: None, era: Some(said.era) };
                let timestamp = said.timestamp;
                let gone = Arc::new(ErasureStatement { said, entry_seq: statement.seq });
                self.entry(EntryFrame { seq, place: timestamp, timestamp, ..statement }, &checked, Some(gone));
            }
            _ => {
                let reason = Some("the row is empty, but no entry records its erasure");
                let unknown = checked.integrity == Integrity::UnknownKey;
                let checked =
                    if unknown { checked } else { Checked { integrity: Integrity::Violation, reason, era: None } };
                let (mac, body) = (Bytes::new(), Bytes::new());
                self.entry(EntryFrame { seq, place, timestamp: place, epoch: 0, mac, body }, &checked, None);
            }
        }
    }

    fn entry(&mut self, entry: EntryFrame, checked: &Checked, gone: Option<Arc<ErasureStatement>>) {
        let (row, era) = self.place(entry, checked, gone);
        match &mut self.proving {
            Some(proving) => proving.row(row, era),
            None => self.ready.push_back(row),
        }
    }

    fn border(&mut self, entry: &EntryFrame) {
        let checked = self.checker.check(&claim(entry));
        if let (Some(proving), Some(era)) =
            (&mut self.proving, checked.era.filter(|_| checked.integrity == Integrity::Ok))
        {
            let place = ProvenRow { seq: entry.seq, era, timestamp: entry.timestamp };
            let (body, mac) = (entry.body.clone(), entry.mac.clone());
            let border = BorderRow { seq: entry.seq, leaf: leaf_hash(&body, &mac), body, mac, erased_under: None };
            proving.border(place, &border);
            self.borders.push(border);
        }
    }

    fn erased_border(&mut self, seq: u64, statement: EntryFrame) {
        let checked = self.checker.check(&claim(&statement));
        let said = Statement::read(&statement.body).filter(|_| checked.integrity == Integrity::Ok);
        if let (Some(proving), Some(Statement::Erased(said))) = (&mut self.proving, said)
            && said.seq == seq
            && seq < statement.seq
        {
            let place = ProvenRow { seq, era: said.era, timestamp: said.timestamp };
            let (leaf, erased_under) = (said.leaf, Some(statement.seq));
            let border = BorderRow { seq, leaf, body: statement.body, mac: statement.mac, erased_under };
            proving.border(place, &border);
            self.borders.push(border);
        }
    }

    fn proof(&mut self, proof: &RangeProof) {
        let Some(proving) = &mut self.proving else { return };
        if let Err(message) = proving.prove(proof) {
            self.fault(message);
        }
        self.release();
    }

    fn release(&mut self) {
        let Some(proving) = &mut self.proving else { return };
        let (rows, fault) = proving.release();
        self.counters.witnessed += rows.iter().filter(|row| row.witnessed).count() as u64;
        self.ready.extend(rows);
        if let Some(message) = fault {
            self.fault(message);
        }
    }

    fn end(&mut self, end: StreamEnd) {
        self.release();
        self.counters.ended = true;
        // Only a node that was asked for a limited number of rows and returned that many may have more.
        self.counters.more = end.more && self.limit == Some(self.counters.rows);
        if end.more && !self.counters.more {
            self.fault("the node stopped early although no limit was reached".to_owned());
        }
        if end.rows != self.counters.rows {
            self.fault(format!("the node reports that it sent {} rows, but {} arrived", end.rows, self.counters.rows));
        }
        for fault in end.faults.into_iter().take(FAULTS_MAX) {
            self.fault(fault.chars().take(FAULT_CHARS_MAX).collect());
        }
        let last = self.last.as_ref().filter(|_| self.counters.more);
        let last = last.map(|key| Position { timestamp: key.timestamp, seq: key.seq });
        let (sieved, start) = (self.sieve.is_some(), self.counters.floor.unwrap_or(0));
        self.counters.retained_whole =
            !sieved && self.proving.as_ref().is_some_and(|proving| proving.is_retained_whole(last, start));
        self.counters.proof = match &mut self.proving {
            Some(_) if self.sieve.is_some() => RangeCompleteness::Not("the query has a filter".to_owned()),
            Some(proving) => proving.conclude(last),
            None if self.counted.is_some() => RangeCompleteness::Not(COUNTED_THERE.to_owned()),
            None => RangeCompleteness::Not("no row of this log has been witnessed yet".to_owned()),
        };
    }

    fn fault(&mut self, message: String) {
        self.counters.note_fault(message);
    }

    /// Checks the row and assigns its key. A valid row gets its own time; any other row gets the position that the node
    /// reports for it. A row that is out of order gets the time of the row before it, so that the merge sees rows in
    /// order. Also returns the row's era if its MAC is valid.
    fn place(
        &mut self,
        entry: EntryFrame,
        checked: &Checked,
        erased: Option<Arc<ErasureStatement>>,
    ) -> (VerifiedRow, Option<u32>) {
        self.counters.rows += 1;
        match checked.integrity {
            Integrity::Ok | Integrity::Erased => self.counters.verified += 1,
            Integrity::UnknownKey => self.counters.unknown_key += 1,
            Integrity::Violation => {
                self.counters.invalid += 1;
                let reason = checked.reason.as_ref().map(ToString::to_string).unwrap_or_default();
                self.member.witness.found_bad_row(self.head.generation, entry.seq, &reason);
            }
        }
        let sound = matches!(checked.integrity, Integrity::Ok | Integrity::Erased);
        let timestamp = if sound { entry.timestamp } else { entry.place };
        let mut key = Key { timestamp, node_id: self.node_id.clone(), seq: entry.seq };
        if let Some(last) = self.last.take() {
            if !self.order.before(&last, &key) {
                if sound {
                    self.fault(format!("row {} arrived out of order", entry.seq));
                }
                key.timestamp = last.timestamp;
            }
            let neighbour = last.seq.abs_diff(entry.seq) == 1;
            let same_era = checked.era.is_none() || checked.era == self.last_era;
            if self.unfiltered && same_era && !neighbour && self.last_era.is_some() {
                let (low, high) = (last.seq.min(entry.seq), last.seq.max(entry.seq));
                self.fault(match high - low {
                    0 => format!("row {low} was sent twice"),
                    2 => format!("row {} is missing", low + 1),
                    _ => format!("rows {} to {} are missing ({} rows)", low + 1, high - 1, high - low - 1),
                });
            }
        }
        self.last_era = checked.era.or(self.last_era);
        self.last = Some(key.clone());
        let EntryFrame { body, mac, epoch, .. } = entry;
        let era = checked.era.filter(|_| sound);
        let (integrity, reason) = (checked.integrity, checked.reason);
        let withheld = !self.scope.admits(integrity, &body);
        let (witnessed, archived) = (false, false);
        (VerifiedRow { key, body, mac, epoch, integrity, witnessed, reason, erased, withheld, archived }, era)
    }
}

/// Returns a message if, according to the node, the range may include rows that the node pruned.
fn reaches_pruned(head: &StreamHead, asked: &NodeRequest) -> Option<String> {
    let pruned = head.pruned.filter(|pruned| asked.request.from <= pruned.newest && !asked.all_there)?;
    Some(format!(
        "rows below {} (the newest from {}) were pruned, as recorded in entry {}",
        pruned.to_seq, pruned.newest, pruned.entry_seq
    ))
}

/// Returns the number of erased rows that are counted instead of shown. A caller limited to a scope does not learn of rows that
/// may be outside of it.
fn erased_apart(head: &StreamHead, asked: &NodeRequest) -> u64 {
    if asked.scope.text().is_some() { 0 } else { head.erased }
}

fn claim(entry: &EntryFrame) -> Claim<'_> {
    let EntryFrame { seq, timestamp, epoch, mac, body, .. } = entry;
    Claim { seq: *seq, timestamp: *timestamp, epoch: *epoch, mac, body }
}

/// Waits for one complete frame. Single bytes that trickle in do not extend the wait.
async fn next_frame(body: &mut Incoming, buffer: &mut BytesMut, wait: Duration) -> Result<Option<Frame>, Failure> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        if let Some(frame) = decode(buffer).map_err(|e| Failure::Error(e.to_string()))? {
            return Ok(Some(frame));
        }
        match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    buffer.extend_from_slice(&data);
                }
            }
            Ok(Some(Err(error))) => return Err(Failure::Broken(format!("connection broken: {error}"))),
            Ok(None) => return Ok(None),
            Err(_) => return Err(Failure::Timeout(format!("no complete frame for {} ms", wait.as_millis()))),
        }
    }
}

/// Derives a node's status and its reason from what was read and how reading ended.
pub(crate) fn conclude(counters: &NodeCounters, began: bool, failure: Option<&Failure>) -> (Status, Option<String>) {
    let integrity = integrity_words(counters);
    match failure {
        None => match integrity {
            Some(message) => (Status::Invalid, Some(message)),
            None if counters.pruned.is_some() => (Status::Pruned, counters.pruned.clone()),
            None => (Status::Ok, None),
        },
        Some(failure) => {
            let status = match failure {
                Failure::Unreachable { .. } => Status::Unreachable,
                Failure::Timeout(_) | Failure::Frozen(_) | Failure::Broken(_) if counters.rows > 0 => {
                    Status::Incomplete
                }
                Failure::Timeout(_) | Failure::Frozen(_) => Status::Timeout,
                Failure::Broken(_) if began => Status::Incomplete,
                Failure::Broken(_) => Status::Unreachable,
                Failure::Error(_) => Status::Error,
            };
            let message =
                integrity.map_or_else(|| failure.reason().to_owned(), |i| format!("{}; {i}", failure.reason()));
            (status, Some(message))
        }
    }
}

fn integrity_words(counters: &NodeCounters) -> Option<String> {
    let mut message = Vec::new();
    if counters.invalid > 0 {
        message.push(format!("{} of {} rows fail verification", counters.invalid, counters.rows));
    }
    if counters.unknown_key > 0 {
        message.push(format!("{} rows use a key epoch that this aggregator has no key for", counters.unknown_key));
    }
    message.extend(counters.faults.iter().cloned());
    (!message.is_empty()).then(|| message.join("; "))
}

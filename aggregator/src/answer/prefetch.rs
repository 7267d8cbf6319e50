//! Reads one node's rows ahead in bounded batches, and feeds them to the merge.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use piperoll_format::order::Key;
use piperoll_format::verify::Integrity;
use piperoll_protocol::aggregator::Status;
use piperoll_query::stats::Counter;
use tokio::sync::mpsc;

use crate::answer::outcome::NodeOutcome;
use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;
use crate::scan::log_reader::LogReader;
use crate::scan::node_reader::{NodeCounters, conclude};
use crate::scan::plan::NodeRequest;
use crate::scan::verified_row::VerifiedRow;

/// Limits of one batch, and maximum number of batches that wait per node.
const BATCH_ROWS: usize = 128;
const BATCH_BYTES: usize = 128 * 1024;
const BATCHES_WAITING: usize = 4;

enum Message {
    Rows(Vec<VerifiedRow>),
    End(NodeCounters, Option<Failure>, Option<Box<Counter>>),
}

/// Rows of one node that wait for the merge.
pub(crate) struct Prefetch {
    pub(crate) part: NodeOutcome,
    pub(crate) began: bool,
    pub(crate) rows: VecDeque<VerifiedRow>,
    incoming: Option<mpsc::Receiver<Message>>,
    failure: Option<Failure>,
    /// Counts of the rows that went into the answer.
    pub(crate) emitted: Counts,
    /// Largest key of the rows that went into the answer.
    pub(crate) latest: Option<Key>,
    /// The node's own counts, received when it finished.
    pub(crate) counted: Option<Box<Counter>>,
    counted_rows: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) rows: u64,
    verified: u64,
    invalid: u64,
    unknown_key: u64,
    witnessed: u64,
}

impl Prefetch {
    pub(crate) fn none(part: NodeOutcome) -> Self {
        let (rows, emitted) = (VecDeque::new(), Counts::default());
        Self {
            part,
            began: false,
            rows,
            incoming: None,
            failure: None,
            emitted,
            latest: None,
            counted: None,
            counted_rows: 0,
        }
    }

    pub(crate) async fn open(member: Arc<NodeHandle>, asked: NodeRequest, limits: FanOutLimits) -> Self {
        let (aside, archived) = (asked.aside, asked.archived.as_ref().map(|rows| rows.part.clone()));
        let part = |part: NodeOutcome| NodeOutcome { aside, archived: archived.clone(), ..part };
        if let Some((status, reason)) = member.circuit_open().filter(|_| archived.is_none()) {
            return Self::none(part(NodeOutcome::unasked(&member, status, reason)));
        }
        let started = Instant::now();
        let opened = tokio::time::timeout(limits.page, LogReader::open(&member, &asked, &limits, Channel::Own)).await;
        let late = || Failure::Timeout(format!("the answer did not begin within {} ms", limits.page.as_millis()));
        match opened.unwrap_or_else(|_| Err(late())) {
            Ok(reader) => {
                let mut part = part(NodeOutcome::asked(&member, started));
                let head = reader.head();
                part.generation = Some(head.generation);
                part.head_seq = head.head_seq;
                part.oldest_seq = head.oldest_seq;
                part.counters = reader.counters().clone();
                (part.status, part.reason) = conclude(&part.counters, true, None);
                let (send, receive) = mpsc::channel(BATCHES_WAITING);
                tokio::spawn(read_ahead(reader, send));
                let incoming = Some(receive);
                Self { began: true, incoming, ..Self::none(part) }
            }
            Err(failure) => {
                if archived.is_none() {
                    member.failed(&failure);
                }
                let mut part = part(NodeOutcome::asked(&member, started));
                (part.status, part.reason) = conclude(&part.counters, false, Some(&failure));
                Self::none(part)
            }
        }
    }

    /// Waits until a row is ready or the node is finished.
    pub(crate) async fn fill(&mut self) {
        while self.rows.is_empty() {
            let Some(incoming) = &mut self.incoming else { return };
            match incoming.recv().await {
                Some(Message::Rows(rows)) => {
                    self.part.last = rows.last().map(|row| row.key.clone());
                    self.rows.extend(rows);
                }
                Some(Message::End(counters, failure, counted)) => {
                    self.counted = counted.filter(|_| failure.is_none());
                    self.counted_rows = self.counted.as_ref().map_or(0, |counted| counted.entries());
                    (self.part.status, self.part.reason) = conclude(&counters, self.began, failure.as_ref());
                    self.part.counters = counters;
                    self.failure = failure;
                    self.incoming = None;
                }
                // `read_ahead` always reports how it ended; without that report the answer must not count as complete.
                None => {
                    self.failure = Some(Failure::Broken("reading the node was aborted".to_owned()));
                    self.part.status = Status::Incomplete;
                    self.incoming = None;
                }
            }
        }
    }

    /// Returns the number of the node's rows in the answer, sent or counted.
    pub(crate) fn rows_in_answer(&self) -> u64 {
        self.emitted.rows + self.counted_rows
    }

    /// Updates the report to match the answer: if the query has a limit, the node may have sent more rows than the
    /// answer contains, or may not have finished.
    pub(crate) fn finish(&mut self) {
        if !self.began {
            return;
        }
        self.part.counters = self.emitted.into_counters(self.part.counters.clone());
        (self.part.status, self.part.reason) = conclude(&self.part.counters, true, self.failure.as_ref());
    }
}

impl Counts {
    /// Combines the rows counted while reading a node with the counts of its answer.
    pub(crate) fn into_counters(self, counters: NodeCounters) -> NodeCounters {
        let Self { rows, verified, invalid, unknown_key, witnessed } = self;
        NodeCounters { rows, verified, invalid, unknown_key, witnessed, ..counters }
    }

    pub(crate) fn add(&mut self, row: &VerifiedRow) {
        self.rows += 1;
        self.witnessed += u64::from(row.witnessed);
        match row.integrity {
            Integrity::Ok | Integrity::Erased => self.verified += 1,
            Integrity::UnknownKey => self.unknown_key += 1,
            Integrity::Violation => self.invalid += 1,
        }
    }
}

/// Reads a node's rows and sends them to the channel. When the channel is full, this task waits outside of every
/// network timeout, so that a slow client never makes a healthy node look slow.
async fn read_ahead(mut reader: LogReader, send: mpsc::Sender<Message>) {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let failure = loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = send.closed() => return,
        };
        match next {
            Ok(Some(row)) => {
                bytes += row.body.len();
                rows.push(row);
                if rows.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                    bytes = 0;
                    if send.send(Message::Rows(std::mem::take(&mut rows))).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) => break None,
            Err(failure) => break Some(failure),
        }
    };
    rows.extend(reader.rest());
    if !rows.is_empty() && send.send(Message::Rows(rows)).await.is_err() {
        return;
    }
    let counted = reader.take_counted();
    let _ = send.send(Message::End(reader.counters().clone(), failure, counted)).await;
}

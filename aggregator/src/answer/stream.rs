//! Streams an answer through bounded buffers between nodes, merge and client, so that memory does not grow with the
//! result. The stream ends with a final record; a stream without one is incomplete.

use std::sync::Arc;

use bytes::Bytes;
use piperoll_evidence::csv;
use piperoll_format::order::Key;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_protocol::aggregator::{Envelope, FinalRecord, StatsAnswer, Status};
use piperoll_query::stats::{Counter, Plan};
use tokio::sync::mpsc;

use crate::answer::archived::{by_member, needed_from_archive};
use crate::answer::fanout::{Cursors, envelope};
use crate::answer::merge::Merge;
use crate::answer::outcome::NodeOutcome;
use crate::answer::prefetch::Prefetch;
use crate::cluster::roster::Cluster;
use crate::scan::archive_plan::ArchivePlan;
use crate::scan::plan::{NodePlan, ask, ask_asides};
use crate::scan::query::Query;
use crate::scan::verified_row::VerifiedRow;
use piperoll_net::fair_share::Share;

/// Bytes per chunk of the answer, and maximum number of chunks that wait for the client.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_WAITING: usize = 8;
/// Pause between the last row and the reset that marks the answer as incomplete.
const RESET_DELAY: std::time::Duration = std::time::Duration::from_millis(250);
/// Number of rows between two progress lines of a check.
const PROGRESS_ROWS: u64 = 20_000;
/// Interval at which a count sends white space to keep the connection alive.
const KEEP_AWAKE: std::time::Duration = std::time::Duration::from_secs(10);

/// Form of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Rows and a final record.
    Ndjson,
    /// Rows only; if rows are lost, the stream is reset.
    Csv,
    /// Rows that fail verification, progress, and a final record.
    Check,
    /// No rows: one JSON object with the counts. White space before it keeps the connection alive.
    Stats(Plan),
}

/// A stream whose nodes have all begun to answer or failed. Nothing has been sent to the client yet.
pub(crate) struct Stream {
    feeds: Vec<Prefetch>,
    query: Query,
}

pub(crate) type ChunkReceiver = mpsc::Receiver<std::io::Result<Bytes>>;

impl Stream {
    /// Queries all nodes and waits until every one has sent its first frame or failed.
    pub(crate) async fn open(cluster: &Cluster, query: Query) -> Self {
        let limit = query.limit.and_then(|limit| u64::try_from(limit).ok());
        let mut opening = Vec::new();
        for member in &cluster.members {
            let asides = ask_asides(member, &query, limit);
            match ask(member, &query, limit) {
                NodePlan::Absent => {}
                NodePlan::Not { status, reason } => {
                    let none = Prefetch::none(NodeOutcome::unasked(member, status, reason));
                    opening.push((member, tokio::spawn(std::future::ready(none))));
                }
                NodePlan::Scan(asked) => {
                    let opened = Prefetch::open(Arc::clone(member), *asked, cluster.limits);
                    opening.push((member, tokio::spawn(opened)));
                }
            }
            for asked in asides {
                let opened = Prefetch::open(Arc::clone(member), asked, cluster.limits);
                opening.push((member, tokio::spawn(opened)));
            }
        }
        let mut feeds = Vec::with_capacity(opening.len());
        for (member, task) in opening {
            feeds.push(task.await.unwrap_or_else(|error| Prefetch::none(NodeOutcome::given_up(member, &error))));
        }
        let mut with_archive = Vec::with_capacity(feeds.len());
        for of_node in by_member(feeds, |feed| &feed.part) {
            let parts: Vec<&NodeOutcome> = of_node.iter().map(|feed| &feed.part).collect();
            let plans = needed_from_archive(cluster.archive.as_deref(), &query, limit, &parts);
            let member = of_node.first().map(|feed| Arc::clone(&feed.part.member));
            with_archive.extend(of_node);
            let Some(member) = member else { continue };
            for plan in plans {
                with_archive.push(match plan {
                    ArchivePlan::Read(asked) => Prefetch::open(Arc::clone(&member), *asked, cluster.limits).await,
                    ArchivePlan::Not { part, reason } => {
                        Prefetch::none(NodeOutcome::without_archive(&member, part, reason))
                    }
                });
            }
        }
        Self { feeds: with_archive, query }
    }

    /// Returns the completeness statement as far as it is known before the first row.
    pub(crate) fn opening(&self) -> Envelope {
        let parts: Vec<&Prefetch> = self.feeds.iter().collect();
        let parts: Vec<NodeOutcome> = parts.iter().map(|feed| feed.part.snapshot()).collect();
        envelope(&parts, &self.query, &|_| 0, None, Cursors::default())
    }

    /// Merges and writes all rows. The returned receiver is the body of the response; dropping it stops the merge, even while no
    /// row matches. `room` is released when the nodes are no longer read.
    pub(crate) fn run(self, output: Output, room: Share) -> ChunkReceiver {
        let (send, receive) = mpsc::channel(CHUNKS_WAITING);
        tokio::spawn(async move {
            let _room = room;
            let reader = send.clone();
            let counting = matches!(output, Output::Stats(_));
            let counter = match &output {
                Output::Stats(plan) => Some(Counter::new(plan.clone())),
                Output::Ndjson | Output::Csv | Output::Check => None,
            };
            let mut writer =
                Writer { send, out: Vec::with_capacity(CHUNK_BYTES + 4_096), output, counter, verified: true };
            let keep_awake = async {
                loop {
                    tokio::time::sleep(KEEP_AWAKE).await;
                    if counting {
                        // A full channel is fine: the client still has unread data.
                        let _ = reader.try_send(Ok(Bytes::from_static(b"\n")));
                    }
                }
            };
            tokio::select! {
                written = self.write(&mut writer) => if written.is_err() { tracing::debug!("the client disconnected") },
                () = reader.closed() => tracing::debug!("the client disconnected"),
                () = keep_awake => {}
            }
        });
        receive
    }

    async fn write(mut self, writer: &mut Writer) -> Result<(), ClientGone> {
        if writer.output == Output::Csv {
            writer.out.extend_from_slice(&csv::header());
        }
        let mut merge = Merge::new(self.query.order);
        for index in 0..self.feeds.len() {
            self.offer(&mut merge, index).await;
        }
        let mut emitted = 0;
        let limit = self.query.limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(u64::MAX);
        let mut last: Option<Key> = None;
        while emitted < limit {
            let Some(index) = merge.take() else { break };
            let Some(row) = self.feeds[index].rows.pop_front() else { break };
            // A row that is repeated or out of order is a fault of its node. Such a row is not counted, because the count would
            // be too large.
            let fresh = self.feeds[index].latest.as_ref().is_none_or(|latest| *latest < row.key);
            if fresh {
                self.feeds[index].latest = Some(row.key.clone());
            }
            self.feeds[index].emitted.add(&row);
            emitted += 1;
            match &mut writer.counter {
                Some(counter) if fresh => self.query.count_row(counter, &row),
                Some(_) => {}
                None => writer.row(&row, emitted).await?,
            }
            last = Some(row.key);
            self.offer(&mut merge, index).await;
        }
        let more = emitted == limit && merge.take().is_some();
        for feed in &mut self.feeds {
            feed.finish();
            if let (Some(counter), Some(counted)) = (&mut writer.counter, feed.counted.take()) {
                counter.merge(*counted);
            }
        }
        writer.verified = self.query.count.is_none();
        let parts: Vec<NodeOutcome> = self.feeds.iter().map(|feed| feed.part.snapshot()).collect();
        let rows_of = |id: &_| {
            let mine = self.feeds.iter().filter(|feed| &feed.part.member.node.id == id);
            mine.map(Prefetch::rows_in_answer).sum()
        };
        let envelope = envelope(&parts, &self.query, &rows_of, last.as_ref().filter(|_| more), Cursors::default());
        // Detect losses that were unknown when the headers were sent and that the rows do not reveal: a node stopped early, or
        // rows are missing.
        let lost = self.feeds.iter().any(|feed| {
            let gap = !feed.part.counters.faults.is_empty();
            let whole = [Status::Ok, Status::Pruned].contains(&feed.part.status);
            feed.began && !whole && (gap || !feed.part.counters.ended)
        });
        writer.end(envelope, lost).await
    }

    /// Offers the next row of a node to the merge, waiting for it if necessary.
    async fn offer(&mut self, merge: &mut Merge, index: usize) {
        let feed = &mut self.feeds[index];
        feed.fill().await;
        if let Some(row) = feed.rows.front() {
            merge.offer(index, row.key.timestamp, row.key.seq);
        }
    }
}

impl Query {
    /// Counts a row if it matches the query. The client of a count sees no rows, so the node's claim that a row matches
    /// is not enough. A row that fails verification is counted only in the statement, because its content cannot be
    /// trusted. A node that counts by itself sends only the rows that it did not count; archived rows are always counted here.
    fn count_row(&self, counter: &mut Counter, row: &VerifiedRow) {
        match row.integrity {
            _ if row.withheld => {}
            Integrity::Ok if self.count.is_some() && !row.archived => {}
            Integrity::Ok => match EntryView::parse(&row.body) {
                Some(entry) => {
                    let within = (self.from..self.to).contains(&row.key.timestamp);
                    if within && self.filter.matches(&entry) {
                        counter.add(&entry, row.key.timestamp);
                    }
                }
                None => counter.add_unreadable(),
            },
            Integrity::Erased => counter.add_erased(),
            Integrity::UnknownKey | Integrity::Violation => {}
        }
    }
}

/// The client closed the connection.
struct ClientGone;

struct Writer {
    send: mpsc::Sender<std::io::Result<Bytes>>,
    out: Vec<u8>,
    output: Output,
    counter: Option<Counter>,
    /// Whether every counted row was read and verified by the aggregator.
    verified: bool,
}

impl Writer {
    async fn row(&mut self, row: &VerifiedRow, number: u64) -> Result<(), ClientGone> {
        match &self.output {
            Output::Ndjson => {
                row.to_row().write_json(&mut self.out);
                self.out.push(b'\n');
            }
            Output::Csv => csv::write_row(&row.to_row(), &mut self.out),
            Output::Check => {
                if row.integrity != Integrity::Ok {
                    row.to_row().write_json(&mut self.out);
                    self.out.push(b'\n');
                }
                if number.is_multiple_of(PROGRESS_ROWS) {
                    self.out.extend_from_slice(format!("{{\"progress\":{number}}}\n").as_bytes());
                    return self.flush().await;
                }
            }
            Output::Stats(_) => {}
        }
        if self.out.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn end(&mut self, envelope: Envelope, lost: bool) -> Result<(), ClientGone> {
        if self.output == Output::Csv {
            self.flush().await?;
            if lost {
                // A CSV file cannot contain a notice, so an incomplete file must not look complete. A reset overtakes data that
                // is still queued, so wait a moment, until the rows written so far have been sent.
                tokio::time::sleep(RESET_DELAY).await;
                return self
                    .send
                    .send(Err(std::io::Error::other("the answer of a node was interrupted")))
                    .await
                    .map_err(|_| ClientGone);
            }
            return Ok(());
        }
        let line = match self.counter.take() {
            Some(counter) => {
                let mut stats = counter.finish();
                stats.erased = stats.erased.saturating_add(envelope.erased.unwrap_or_default());
                serde_json::to_string(&StatsAnswer { envelope, verified: self.verified, stats })
            }
            None => serde_json::to_string(&FinalRecord { envelope }),
        };
        let line = line.unwrap_or_default();
        self.out.extend_from_slice(line.as_bytes());
        self.out.push(b'\n');
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ClientGone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.out, Vec::with_capacity(CHUNK_BYTES + 4_096));
        self.send.send(Ok(Bytes::from(chunk))).await.map_err(|_| ClientGone)
    }
}

//! Delivers spooled entries: one task reads the spool in order, and reports losses.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::now;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::GapReport;
use tokio_util::sync::CancellationToken;

use super::batch::send_lines;
use super::error::ClientError;
use super::loss_counters::{Cause, LossCounters};
use super::metrics::Metrics;
use super::node::NodeClient;
use super::pauses::pauses;
use super::spool::{Read, SegmentReader, Spool, SpooledEntry};

/// Maximum number of entries, and of bytes, in one request.
const LINES_MAX: usize = 256;
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time limit of one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause between attempts while the node cannot record entries.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Idle time after which a segment that has been sent is closed so that it can be removed.
const QUIET: Duration = Duration::from_millis(200);
/// Interval at which the delivery task checks for losses even if no new entry arrives.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Delivery {
    pub(crate) node: NodeClient,
    pub(crate) spool: Arc<Spool>,
    pub(crate) ledger: Arc<LossCounters>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) source: String,
}

impl Delivery {
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.deliver()).await;
    }

    async fn deliver(&self) {
        // Segments whose files cannot be removed or read; they are skipped until a restart.
        let mut done = HashSet::new();
        loop {
            self.report_losses().await;
            match self.spool.oldest(&done) {
                Ok(Some(segment)) => {
                    let number = segment.number;
                    if let Err(error) = self.empty(segment).await {
                        tracing::error!(%error, number, "cannot process a spool segment; retrying after a restart");
                        done.insert(number);
                    }
                }
                Ok(None) => {
                    self.metrics.oldest_waiting(None);
                    let _ = tokio::time::timeout(LOOK_AGAIN, self.spool.waiting().more.notified()).await;
                }
                Err(error) => {
                    tracing::error!(%error, folder = %self.spool.folder().display(), "cannot read the spool");
                    tokio::time::sleep(PAUSE_MAX).await;
                }
            }
        }
    }

    /// Sends a segment's entries in order, and then removes the segment.
    async fn empty(&self, mut segment: SegmentReader) -> std::io::Result<()> {
        loop {
            // Get the end before reading: `None` means that the segment is closed and `next_batch` can read all of it.
            let end = self.spool.end_of(&segment);
            let (batch, stop) = next_batch(&mut segment, end);
            if let Some(first) = batch.first() {
                self.metrics.oldest_waiting(Some(first.time));
                self.send(&batch).await;
                if !matches!(stop, Some(Stop::Damaged | Stop::Unreadable(_))) {
                    continue;
                }
            }
            match stop {
                Some(Stop::Damaged) => return self.quarantine(&segment).await,
                Some(Stop::Unreadable(error)) => {
                    self.ledger.lost(Cause::Damaged, None, now().micros());
                    return Err(error);
                }
                _ if end.is_none() => return self.spool.remove(&segment),
                _ => {
                    let more = self.spool.waiting().more.notified();
                    if tokio::time::timeout(QUIET, more).await.is_err() || !self.ledger.is_clean() {
                        // Close the segment. It can be removed once nothing more can be written to it.
                        self.spool.rotate().await;
                    }
                }
            }
        }
    }

    /// Sends the entries until each one is recorded or permanently refused.
    async fn send(&self, batch: &[SpooledEntry]) {
        let mut pauses = pauses(PAUSE_FIRST, PAUSE_MAX);
        let mut rest: Vec<&SpooledEntry> = batch.iter().collect();
        while !rest.is_empty() {
            let lines = rest.iter().flat_map(|kept| [kept.text.as_str(), "\n"]).collect::<String>().into_bytes();
            let answers = send_lines(&self.node, PATIENCE, lines, rest.len()).await;
            let mut again = Vec::new();
            let mut problem = None;
            for (kept, answer) in rest.into_iter().zip(answers) {
                match answer {
                    Ok(_) => self.spool.waiting().settled(1, kept.bytes()),
                    Err(error) if error.is_transient() => {
                        problem = Some(error);
                        again.push(kept);
                    }
                    Err(error) => self.refused(kept, &error).await,
                }
            }
            rest = again;
            if let Some(problem) = problem {
                tracing::debug!(%problem, waiting = rest.len(), "entries are waiting in the spool");
                tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
            }
        }
    }

    /// Reports a refused entry as lost. The id of the report is derived from the id of the entry: if a crash causes the entry to
    /// be refused and reported again, the second report has the same id, so the loss is recorded once.
    async fn refused(&self, kept: &SpooledEntry, error: &ClientError) {
        // Do not log the entry itself: more people can read the application's log than the audit log.
        tracing::error!(%error, "the node refused an entry from the spool; counting it as lost");
        let time = Timestamp::from_micros(kept.time);
        let report = GapReport {
            id: gap_id(&kept.text),
            count: Some(1),
            cause: Cause::Refused.label().to_owned(),
            source: Some(self.source.clone()).filter(|source| !source.is_empty()),
            from: Some(time),
            to: Some(time),
        };
        let mut pauses = pauses(PAUSE_FIRST, PAUSE_MAX);
        while let Err(problem) = self.node.report_gap(&report).await {
            if matches!(&problem, ClientError::Refused(problem) if problem.status == 409) {
                break;
            }
            tracing::error!(%problem, "cannot report a loss; queued entries are waiting");
            tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
        }
        self.metrics.gap_reported();
        self.metrics.lost(1);
        self.spool.waiting().settled(1, kept.bytes());
    }

    async fn quarantine(&self, segment: &SegmentReader) -> std::io::Result<()> {
        self.ledger.lost(Cause::Damaged, None, now().micros());
        let path = self.spool.quarantine(segment).await?;
        tracing::error!(path = %path.display(), "a spool segment is damaged and was set aside");
        Ok(())
    }

    /// Reports counted losses to the node, which records an entry about each. If a report fails while entries wait in the spool,
    /// returns after a pause, so that those entries are delivered first.
    async fn report_losses(&self) {
        let mut pauses = pauses(PAUSE_FIRST, PAUSE_MAX);
        while let Some((cause, report)) = self.ledger.next_report(&self.source) {
            match self.node.report_gap(&report).await {
                Ok(_) => {
                    self.metrics.gap_reported();
                    self.ledger.reported(cause);
                }
                // The report's id was already recorded with other content: a process of another user has already reported this
                // loss.
                Err(ClientError::Refused(problem)) if problem.status == 409 => self.ledger.reported(cause),
                Err(error) => {
                    if !error.is_transient() {
                        tracing::error!(%error, "cannot report lost entries to the node");
                    }
                    tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
                    // Deliver spooled entries first: the node may accept them although it does not accept the report.
                    if !error.is_transient() || !self.spool.waiting().is_empty() {
                        return;
                    }
                }
            }
        }
    }
}

enum Stop {
    Reached,
    Damaged,
    Unreadable(std::io::Error),
}

/// Derives the id of the loss report from the id of the lost entry, or creates one if the entry has none.
fn gap_id(entry: &str) -> EntryId {
    #[derive(serde::Deserialize)]
    struct Named {
        id: EntryId,
    }
    let id = serde_json::from_str::<Named>(entry)
        .map_or_else(|_| *uuid::Uuid::now_v7().as_bytes(), |named| *named.id.as_bytes());
    EntryId::from_uuid(uuid::Uuid::from_bytes(id.map(|byte| byte ^ 0x5a)))
}

fn next_batch(segment: &mut SegmentReader, end: Option<u64>) -> (Vec<SpooledEntry>, Option<Stop>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < LINES_MAX && bytes < BYTES_MAX {
        match segment.next(end) {
            Ok(Read::Record(kept)) => {
                bytes += kept.bytes();
                batch.push(kept);
            }
            Ok(Read::End) => return (batch, Some(Stop::Reached)),
            Ok(Read::Damaged) => return (batch, Some(Stop::Damaged)),
            Err(error) => return (batch, Some(Stop::Unreadable(error))),
        }
    }
    (batch, None)
}

//! Common interface of all destinations: sends rows, and confirms that all of them arrived.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::time::Duration;

use piperoll_format::row::Row;
use piperoll_format::time::Timestamp;
use piperoll_siem::{Event, Format, OmittedFields, Syslog};

use super::batch::{Batch, SinkError};
use super::config::{ForwardConfig, Target};
use super::file::FileSink;
use super::stream::StreamSink;
use super::webhook::WebhookSink;
use crate::store::StoredRow;

/// Maximum rows in one write.
const ROWS_MAX: usize = 1_000;
/// Threads that encode messages of one destination. More would take CPU time from recording.
const THREADS_MAX: usize = 2;
/// Minimum rows for which a second thread is worth its cost.
const THREADS_ROWS_MIN: usize = 64;

pub(super) enum Sink {
    Stream(StreamSink),
    File(FileSink),
    Webhook(WebhookSink),
}

impl Sink {
    pub(super) fn new(config: &ForwardConfig) -> Self {
        match &config.target {
            Target::Syslog(target) => Self::Stream(StreamSink::new(target.clone())),
            Target::File { path } => Self::File(FileSink::new(path.clone())),
            Target::Webhook(target) => Self::Webhook(WebhookSink::new(target.clone())),
        }
    }

    /// Maximum rows that are sent at once.
    pub(super) fn rows_max(&self) -> usize {
        match self {
            Self::Stream(sink) => usize::try_from(sink.window()).unwrap_or(ROWS_MAX).min(ROWS_MAX),
            Self::File(_) => ROWS_MAX,
            Self::Webhook(sink) => sink.rows_max(),
        }
    }

    /// Maximum rows in flight before the worker confirms that they arrived. If a receiver dies, up to this many rows are sent
    /// again.
    pub(super) fn unconfirmed_max(&self) -> u64 {
        match self {
            Self::Stream(sink) => sink.window(),
            Self::File(_) => 10_000,
            // The response itself confirms the batch.
            Self::Webhook(_) => 1,
        }
    }

    pub(super) async fn send(&mut self, batch: Batch) -> Result<(), SinkError> {
        match self {
            Self::Stream(sink) => sink.send(&batch.bytes).await,
            Self::File(sink) => sink.send(batch.bytes).await,
            Self::Webhook(sink) => sink.send(batch).await,
        }
    }

    /// Confirms delivery: when this returns successfully, everything that was sent has arrived.
    pub(super) async fn confirm(&mut self) -> Result<(), SinkError> {
        match self {
            Self::Stream(sink) => sink.confirm().await,
            Self::File(sink) => sink.confirm().await,
            Self::Webhook(_) => Ok(()),
        }
    }

    /// Drops a connection after an error on it.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Stream(sink) => sink.reset(),
            Self::File(sink) => sink.reset(),
            Self::Webhook(_) => {}
        }
    }

    /// Time after which the worker confirms what was sent before it sends more.
    pub(super) fn confirm_every(&self, configured: Duration) -> Duration {
        match self {
            Self::Stream(_) => configured,
            Self::File(_) => configured.min(Duration::from_secs(1)),
            Self::Webhook(_) => Duration::ZERO,
        }
    }
}

/// Encodes rows as messages, with their origin and format.
#[derive(Clone)]
pub(super) struct Encoder {
    pub(super) cluster: String,
    pub(super) node_id: String,
    pub(super) generation: String,
    pub(super) format: Format,
    /// `None` for a destination that accepts lines.
    pub(super) syslog: Option<Syslog>,
}

impl Encoder {
    pub(super) fn new(config: &ForwardConfig, cluster: &str, node_id: &str, generation: String) -> Self {
        let syslog = match &config.target {
            Target::Syslog(target) => {
                Some(Syslog { format: config.format, enterprise: target.enterprise, size_max: target.size_max })
            }
            Target::File { .. } | Target::Webhook(_) => None,
        };
        let (cluster, node_id) = (cluster.to_owned(), node_id.to_owned());
        Self { cluster, node_id, generation, format: config.format, syslog }
    }

    /// Encodes rows; uses several threads if there are many rows, which is the case when the receiver lags.
    pub(super) fn encode(&self, rows: &[StoredRow], synced: Option<bool>, omit: OmittedFields) -> Batch {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX);
        if threads == 1 || rows.len() < THREADS_ROWS_MIN {
            return self.encode_part(rows, synced, omit);
        }
        let parts: Vec<Batch> = std::thread::scope(|scope| {
            let part = |rows| scope.spawn(move || self.encode_part(rows, synced, omit));
            let running: Vec<_> = rows.chunks(rows.len().div_ceil(threads)).map(part).collect();
            running.into_iter().map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        parts.into_iter().reduce(Batch::followed_by).unwrap_or_default()
    }

    fn encode_part(&self, rows: &[StoredRow], synced: Option<bool>, omit: OmittedFields) -> Batch {
        let mut batch = Batch { generation: self.generation.clone(), ..Batch::default() };
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            batch.range = (first.seq, last.seq);
        }
        for stored in rows {
            let row = stored.to_row(&self.node_id);
            let left_out = match &self.syslog {
                Some(syslog) => {
                    let (frame, left_out) = syslog.frame(self.event(stored, &row).without(omit), synced);
                    batch.bytes.extend_from_slice(&frame);
                    left_out
                }
                None => {
                    let line = self.event(stored, &row).without(omit).to_text(self.format);
                    batch.bytes.extend_from_slice(line.as_bytes());
                    batch.bytes.push(b'\n');
                    omit
                }
            };
            batch.rows += 1;
            batch.reduced += u64::from(left_out != OmittedFields::Nothing);
        }
        batch
    }

    fn event<'a>(&'a self, stored: &StoredRow, row: &'a Row<'a>) -> Event<'a> {
        let recorded: Timestamp = stored.erased.as_ref().map_or(stored.timestamp, |erased| erased.statement.timestamp);
        Event::new((&self.cluster, &self.node_id, &self.generation, stored.seq), recorded, row)
    }
}

//! Task of one destination: reads rows, sends them, confirms delivery and stores the offset; after a failure it restarts at the
//! offset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_net::clock::{Clock, kernel_is_synced};
use piperoll_siem::OmittedFields;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batch::SinkError;
use super::destination::{Destination, say};
use super::sink::{Encoder, Sink};
use crate::store::{ReadError, RowRange, Store, StoredRow};

/// Polling interval while there are no new rows.
const POLL: Duration = Duration::from_millis(100);
/// Delay between retries.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time for confirming the last rows when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum age of rows that were read ahead. It is short because a row may be erased after it was read.
const AHEAD_LASTS: Duration = Duration::from_secs(1);
/// Maximum age of the last known state of the clock.
const SYNCED_LASTS: Duration = Duration::from_secs(60);

/// Rows that are read while earlier rows are encoded and sent.
struct Ahead {
    from: u64,
    since: Instant,
    reading: JoinHandle<Result<RowRange, ReadError>>,
}

pub(super) struct Worker {
    store: Store,
    clock: Arc<dyn Clock>,
    outlet: Arc<Destination>,
    sink: Sink,
    encoder: Encoder,
    /// Number of the next row to send; never less than the stored offset.
    next: u64,
    ahead: Option<Ahead>,
    /// Time at which the oldest unconfirmed row was sent.
    unconfirmed_since: Option<Instant>,
    /// Ranges of missing rows among those that were sent.
    gaps: Vec<(u64, u64)>,
    synced: Option<(Instant, Option<bool>)>,
}

impl Worker {
    pub(super) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        outlet: Arc<Destination>,
        cluster: &str,
        node_id: &str,
    ) -> Self {
        let encoder = Encoder::new(&outlet.config, cluster, node_id, store.generation().to_string());
        let (sink, next) = (Sink::new(&outlet.config), outlet.state().place.next_seq);
        Self {
            store,
            clock,
            outlet,
            sink,
            encoder,
            next,
            ahead: None,
            unconfirmed_since: None,
            gaps: Vec::new(),
            synced: None,
        }
    }

    /// Runs until the node stops.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let delays = || {
            ExponentialBuilder::default()
                .with_min_delay(RETRY_MIN)
                .with_max_delay(RETRY_MAX)
                .with_jitter()
                .without_max_times()
                .build()
        };
        let mut delay = delays();
        loop {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = self.step() => outcome,
            };
            match outcome {
                Ok(did_something) => {
                    if did_something {
                        // Only a confirmed delivery clears the problem, and so resets the delay.
                        if self.outlet.state().problem.is_none() {
                            delay = delays();
                        }
                        continue;
                    }
                    let pause = tokio::time::sleep(POLL);
                    tokio::select! { () = stop.cancelled() => break, () = pause => {}, () = self.outlet.changed.notified() => {} }
                }
                Err(error) => {
                    self.failed(&error);
                    let pause = tokio::time::sleep(delay.next().unwrap_or(RETRY_MAX));
                    tokio::select! { () = stop.cancelled() => break, () = pause => {}, () = self.outlet.changed.notified() => {} }
                }
            }
        }
        // Rows that are not confirmed within this time are sent again after the next start.
        if self.unconfirmed_since.is_some() {
            let _ = tokio::time::timeout(STOP_TIMEOUT, self.confirm()).await;
        }
    }

    /// Sends some rows, or confirms rows that were sent before; returns whether there was anything to do.
    async fn step(&mut self) -> Result<bool, SinkError> {
        if self.outlet.state().place.paused.is_some() {
            // Rows in flight may still arrive, but no more are sent. Rows that were read ahead are dropped, because they may be erased
            // before the destination is resumed.
            self.ahead = None;
            let on_its_way = self.unconfirmed_since.is_some();
            if on_its_way {
                self.confirm().await?;
            }
            return Ok(on_its_way);
        }
        let place = self.outlet.state().place.next_seq;
        let patience = self.sink.confirm_every(self.outlet.config.confirm_every);
        let is_due = self.unconfirmed_since.is_some_and(|since| since.elapsed() >= patience);
        if is_due || self.next.saturating_sub(place) >= self.sink.unconfirmed_max() {
            self.confirm().await?;
            return Ok(true);
        }
        let slice = self.read().await?;
        if slice.next == self.next {
            return Ok(false);
        }
        if let Some(first) = slice.pruned_to {
            return self.pass_over_pruned(first).await.map(|()| true);
        }
        if self.next == place {
            self.outlet.state().waits_since = slice.rows.first().map(|row| row.timestamp);
        }
        self.gaps.extend(&slice.missing);
        self.send(slice).await?;
        Ok(true)
    }

    /// Returns the next rows, and starts to read the rows after them, so that they are ready once the returned rows have been
    /// sent.
    async fn read(&mut self) -> Result<RowRange, SinkError> {
        let rows_max = self.sink.rows_max();
        let slice = match self.ahead.take() {
            Some(Ahead { from, since, reading }) if from == self.next && since.elapsed() < AHEAD_LASTS => {
                reading.await.map_err(|error| SinkError(error.to_string()))?
            }
            _ => self.store.slice(self.next, rows_max).await,
        };
        let slice = slice.map_err(|error| SinkError(error.to_string()))?;
        if slice.is_full {
            let (store, from) = (self.store.clone(), slice.next);
            let reading = tokio::spawn(async move { store.slice(from, rows_max).await });
            self.ahead = Some(Ahead { from, since: Instant::now(), reading });
        }
        Ok(slice)
    }

    /// Skips rows that were pruned and can no longer be forwarded: records the gap once, and moves the offset past them.
    async fn pass_over_pruned(&mut self, first: u64) -> Result<(), SinkError> {
        if self.unconfirmed_since.is_some() {
            self.confirm().await?;
        }
        self.say_gap(self.next, first - 1, "pruned before they were forwarded").await?;
        self.outlet.change(move |place| place.next_seq = first).await.map_err(|error| SinkError(error.to_string()))?;
        self.next = first;
        Ok(())
    }

    async fn say_gap(&self, first: u64, last: u64, cause: &str) -> Result<(), SinkError> {
        let details = json!({ "name": self.outlet.config.name, "from_seq": first, "to_seq": last, "cause": cause });
        let said = say(&self.store, "log.forward_gap", "rows were not forwarded", &details).await;
        said.map_err(|error| SinkError::new("cannot record that rows were not forwarded", error))
    }

    async fn send(&mut self, slice: RowRange) -> Result<(), SinkError> {
        let synced = self.is_synced().await;
        let RowRange { rows, next, .. } = slice;
        let filter = self.outlet.config.filter.clone();
        let encoder = self.encoder.clone();
        let omit = match &self.sink {
            Sink::Webhook(sink) => sink.omit(),
            Sink::Stream(_) | Sink::File(_) => OmittedFields::Nothing,
        };
        let encoded = tokio::task::spawn_blocking(move || {
            let is_wanted = |row: &StoredRow| {
                filter.is_empty()
                    || row.checked.integrity != Integrity::Ok
                    || EntryView::parse(&row.body).is_none_or(|view| filter.matches(&view))
            };
            let wanted: Vec<StoredRow> = rows.into_iter().filter(is_wanted).collect();
            encoder.encode(&wanted, synced, omit)
        });
        let batch = encoded.await.map_err(|error| SinkError(error.to_string()))?;
        let (count, reduced) = (batch.rows, batch.reduced);
        self.unconfirmed_since.get_or_insert_with(Instant::now);
        if count > 0 {
            self.sink.send(batch).await?;
        }
        self.next = next;
        let mut state = self.outlet.state();
        state.rows_sent += count;
        state.rows_reduced += reduced;
        Ok(())
    }

    /// Confirms that everything arrived, and stores the offset.
    async fn confirm(&mut self) -> Result<(), SinkError> {
        self.sink.confirm().await?;
        for (first, last) in std::mem::take(&mut self.gaps) {
            self.say_gap(first, last, "missing from the log; run `piperoll node verify`").await?;
        }
        let (next, now) = (self.next, self.clock.now());
        self.outlet.change(move |place| place.next_seq = next).await.map_err(|error| SinkError(error.to_string()))?;
        self.unconfirmed_since = None;
        let mut state = self.outlet.state();
        state.waits_since = None;
        state.arrived_at = Some(now);
        if let Some((since, _)) = state.problem.take() {
            tracing::info!(forward = self.outlet.config.name, %since, "forwarding resumed");
        }
        Ok(())
    }

    fn failed(&mut self, error: &SinkError) {
        self.sink.reset();
        (self.unconfirmed_since, self.ahead) = (None, None);
        self.gaps.clear();
        let mut state = self.outlet.state();
        self.next = state.place.next_seq;
        state.errors += 1;
        let is_new = state.problem.as_ref().is_none_or(|(_, known)| *known != error.0);
        let since = state.problem.as_ref().map_or_else(|| self.clock.now(), |(since, _)| *since);
        state.problem = Some((since, error.0.clone()));
        drop(state);
        if is_new {
            tracing::warn!(forward = self.outlet.config.name, %error, "forwarding failed; retrying");
        }
    }

    async fn is_synced(&mut self) -> Option<bool> {
        self.encoder.syslog?;
        match self.synced {
            Some((looked, known)) if looked.elapsed() < SYNCED_LASTS => known,
            _ => {
                let known = kernel_is_synced().await;
                self.synced = Some((Instant::now(), known));
                known
            }
        }
    }
}

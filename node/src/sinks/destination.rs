//! State of one destination, shared by its task and the API.

use std::sync::{Arc, Mutex, PoisonError};

use piperoll_format::entry::lifecycle;
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::ForwardStatus;
use tokio::sync::Notify;

use super::config::ForwardConfig;
use super::offset::{OffsetError, OffsetFile, StoredOffset};
use crate::store::{AppendError, NewEntry, Store};

/// One destination, shared by its task and the API.
pub(crate) struct Destination {
    pub(crate) config: ForwardConfig,
    pub(super) file: OffsetFile,
    pub(super) state: Arc<Mutex<Progress>>,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Notifies the destination's task of a change.
    pub(crate) changed: Notify,
}

#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) place: StoredOffset,
    /// Recording time of the oldest unconfirmed row among the rows that were read.
    pub(super) waits_since: Option<Timestamp>,
    pub(super) arrived_at: Option<Timestamp>,
    pub(super) rows_sent: u64,
    pub(super) rows_reduced: u64,
    pub(super) errors: u64,
    pub(super) problem: Option<(Timestamp, String)>,
}

impl Destination {
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change, on disk first and then in memory. Changes are serialized; status requests never wait for a disk.
    pub(super) async fn change(&self, change: impl FnOnce(&mut StoredOffset)) -> Result<(), OffsetError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let mut place = self.state().place.clone();
        change(&mut place);
        let (file, state) = (self.file.clone(), Arc::clone(&self.state));
        let written = tokio::task::spawn_blocking(move || {
            // Hold the turn until memory matches the disk, even if the caller is gone: the next change is based on the state in
            // memory.
            let _turn = turn;
            file.write(&place)?;
            state.lock().unwrap_or_else(PoisonError::into_inner).place = place;
            Ok(())
        })
        .await;
        written.unwrap_or_else(|e| Err(OffsetError::Io { path: self.file.path().to_owned(), source: e.into() }))?;
        self.changed.notify_waiters();
        Ok(())
    }

    pub(super) fn status(&self, rows: u64, now: Timestamp) -> ForwardStatus {
        let state = self.state();
        let lag_rows = rows.saturating_sub(state.place.next_seq);
        let waits =
            state.waits_since.filter(|_| lag_rows > 0).map_or(0, |since| now.micros().saturating_sub(since.micros()));
        ForwardStatus {
            name: self.config.name.clone(),
            to: state.place.wanted.to.clone(),
            format: self.config.format.as_str().to_owned(),
            next_seq: state.place.next_seq,
            lag_rows,
            lag_seconds: waits.max(0) as f64 / 1e6,
            rows_sent: state.rows_sent,
            rows_reduced: state.rows_reduced,
            errors: state.errors,
            problem: state.problem.as_ref().map(|(_, problem)| problem.clone()),
            problem_since: state.problem.as_ref().map(|(since, _)| since.to_text()),
            arrived_at: state.arrived_at.map(Timestamp::to_text),
            paused: state
                .place
                .paused
                .as_ref()
                .map(|pause| format!("{} by {}: {}", pause.since, pause.by, pause.reason)),
        }
    }
}

/// Records an entry about the node itself.
pub(super) async fn say(
    store: &Store,
    action: &str,
    message: &str,
    details: &serde_json::Value,
) -> Result<(), AppendError> {
    let new_entry = NewEntry { entry: lifecycle(action, message, details), via: Arc::from("node") };
    store.append(vec![new_entry]).await.pop().unwrap_or(Err(AppendError::Stopping)).map(|_| ())
}

/// Records an event that has already happened. A failure is only logged, because the event cannot be undone.
pub(super) async fn record(store: &Store, action: &str, message: &str, details: serde_json::Value) {
    if let Err(error) = say(store, action, message, &details).await {
        tracing::error!(%error, action, "cannot record this change");
    }
}

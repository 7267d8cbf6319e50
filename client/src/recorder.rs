//! Accepts the entries of an application.

use std::sync::Arc;
#[cfg(feature = "tower")]
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::now;
use piperoll_format::entry::CallerEntry;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_protocol::node::Receipt;
use piperoll_redact::Redactor;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::Submission;
use super::entry::{Category, Entry};
use super::loss_counters::{Cause, LossCounters};
use super::metrics::Metrics;
use super::outcome::{EmitError, Emitted};
use super::pauses::pauses;
use super::policy::{DEADLINE_DEFAULT, DeliveryPolicy, Policies};
use super::recorded_entries::RecordedEntries;
use super::spool::{Spool, SpoolError, SpooledEntry};

/// Pauses between attempts to record a strict entry.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Sends entries to the node on this machine. Clones share one connection pool and one spool.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) backend: Backend,
    pub(super) policies: Policies,
    pub(super) deadline: Duration,
    pub(super) redactor: Redactor,
    pub(super) ledger: Arc<LossCounters>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
    /// Cancelled at the start of `close`, so that counted refusals are recorded at once instead of at the end of their window.
    pub(super) closing: CancellationToken,
    /// The task that sends spooled entries and keeps the spool directory locked.
    pub(super) delivery: TaskTracker,
    /// Running operations of [`super::RecordLayer`], which `close` waits for.
    pub(super) operations: TaskTracker,
    pub(super) is_closed: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
        self.stop.cancel();
    }
}

/// Lets a background task hold a recorder without keeping its spool directory locked.
#[cfg(feature = "tower")]
pub(crate) struct WeakRecorder(Weak<Inner>);

#[cfg(feature = "tower")]
impl WeakRecorder {
    pub(crate) fn upgrade(&self) -> Option<Recorder> {
        self.0.upgrade().map(Recorder)
    }
}

#[derive(Debug)]
pub(super) enum Backend {
    Node {
        submit: mpsc::Sender<Submission>,
        spool: Option<Arc<Spool>>,
    },
    /// Keeps entries in memory, for tests of applications.
    Memory(RecordedEntries),
}

/// Result of one attempt.
enum Attempt {
    Recorded(Receipt),
    Never(EmitError),
    NotNow(String),
}

impl Recorder {
    pub(super) fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Creates a recorder that keeps entries in memory, for tests of an application without a node.
    #[must_use]
    pub fn in_memory() -> (Self, RecordedEntries) {
        let captured = RecordedEntries::default();
        let inner = Inner {
            backend: Backend::Memory(captured.clone()),
            policies: Policies::default(),
            deadline: DEADLINE_DEFAULT,
            redactor: Redactor::default(),
            ledger: Arc::new(LossCounters::in_memory()),
            metrics: Arc::new(Metrics::new(None)),
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            delivery: TaskTracker::new(),
            operations: TaskTracker::new(),
            is_closed: AtomicBool::new(false),
        };
        (Self(Arc::new(inner)), captured)
    }

    /// Returns the policy of a category.
    #[must_use]
    pub fn policy_of(&self, category: Category) -> DeliveryPolicy {
        self.0.policies.of(category)
    }

    #[cfg(feature = "tower")]
    /// Whether entries can be spooled.
    fn can_keep(&self) -> bool {
        matches!(&self.0.backend, Backend::Node { spool: Some(_), .. })
    }

    #[cfg(feature = "tower")]
    /// Returns the policy for an operation that has already happened: if there is a spool, a strict entry is spooled instead of lost.
    pub(crate) fn policy_after_the_fact(&self, category: Category) -> DeliveryPolicy {
        match self.policy_of(category) {
            DeliveryPolicy::Strict if self.can_keep() => DeliveryPolicy::Spool,
            policy => policy,
        }
    }

    /// Emits an entry under the policy of its category.
    ///
    /// # Errors
    /// The entry is invalid, or the node refused it; or the policy is strict and the entry was not recorded before the deadline;
    /// or the entry was lost, and counted as lost.
    pub async fn emit(&self, entry: Entry) -> Result<Emitted, EmitError> {
        let policy = self.policy_of(entry.category);
        self.emit_with_policy(entry, policy).await
    }

    /// Emits an entry under the given policy.
    ///
    /// # Errors
    /// As for [`Self::emit`].
    pub async fn emit_with_policy(&self, mut entry: Entry, policy: DeliveryPolicy) -> Result<Emitted, EmitError> {
        if self.0.is_closed.load(Ordering::Acquire) {
            return Err(EmitError::Closed);
        }
        let (id, now) = (entry.id, now());
        if policy != DeliveryPolicy::Strict && entry.occurred_at.is_none() {
            // The entry may be recorded much later. Use the time when it was created, not the current time, so that the same
            // entry has the same content if it is emitted again.
            entry.occurred_at = Some(entry.made);
        }
        let text = entry.to_text(&self.0.redactor);
        // Refuse here what the node would refuse: the spool must not hold entries that can never be recorded.
        CallerEntry::parse(text.as_bytes())?.check_size()?;
        let result = match &self.0.backend {
            Backend::Memory(captured) => Ok(captured.take(id, &text, now)),
            Backend::Node { submit, spool } => match policy {
                DeliveryPolicy::Strict => self.record_in_time(submit, text).await,
                DeliveryPolicy::Spool => self.record_or_keep(submit, spool.as_deref(), id, text, now).await,
                DeliveryPolicy::BestEffort => self.keep_or_count(spool.as_deref(), id, text, now).await,
            },
        };
        self.0.metrics.count(policy, &result);
        result
    }

    /// Waits until the spool is empty and every loss is reported. Returns false if that took longer than `within`.
    pub async fn flush(&self, within: Duration) -> bool {
        let Backend::Node { spool: Some(spool), .. } = &self.0.backend else { return true };
        let waiting = spool.waiting();
        let done = async {
            while !waiting.is_empty() || !self.0.ledger.is_clean() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(within, done).await.is_ok()
    }

    /// Waits for running operations and for the spool, then refuses new entries. Returns false if the wait took longer than
    /// `within`. Entries left in the spool are sent by the next recorder that opens the spool, which is possible once the last
    /// clone of this recorder is dropped.
    pub async fn close(self, within: Duration) -> bool {
        let finished = async {
            self.0.closing.cancel();
            self.0.operations.close();
            self.0.operations.wait().await;
            self.flush(within).await
        };
        let flushed = tokio::time::timeout(within, finished).await.unwrap_or(false);
        self.0.is_closed.store(true, Ordering::Release);
        self.0.stop.cancel();
        self.0.delivery.close();
        self.0.delivery.wait().await;
        flushed
    }

    #[cfg(feature = "tower")]
    /// Runs a task that [`Self::close`] waits for, even if the caller does not wait for it.
    pub(crate) fn operation<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.operations.spawn(work)
    }

    #[cfg(feature = "tower")]
    /// Returns a token that is cancelled by [`Self::close`], or when the last clone is dropped.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    #[cfg(feature = "tower")]
    pub(crate) fn downgrade(&self) -> WeakRecorder {
        WeakRecorder(Arc::downgrade(&self.0))
    }

    /// Adds the recorder's counters to an application's registry, under names that begin with `piperoll_audit`.
    #[cfg(feature = "metrics")]
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.0.metrics.register(registry);
    }

    /// Returns the recorder's counters in the OpenMetrics text format, for an application without a registry.
    #[cfg(feature = "metrics")]
    pub fn metrics_text(&self) -> String {
        self.0.metrics.text()
    }

    async fn try_once(&self, submit: &mpsc::Sender<Submission>, text: &str) -> Attempt {
        let (submission, answer) = Submission::new(text);
        if submit.send(submission).await.is_err() {
            return Attempt::Never(EmitError::Closed);
        }
        match answer.await {
            Ok(Ok(receipt)) => Attempt::Recorded(receipt),
            Ok(Err(error)) if error.is_transient() => Attempt::NotNow(error.to_string()),
            Ok(Err(error)) => Attempt::Never(EmitError::Refused(error)),
            Err(_) => Attempt::Never(EmitError::Closed),
        }
    }

    /// Attempts to record the entry until the deadline, always with the same id.
    async fn record_in_time(&self, submit: &mpsc::Sender<Submission>, text: String) -> Result<Emitted, EmitError> {
        let deadline = self.0.deadline;
        let mut problem = "the node did not answer".to_owned();
        let tries = async {
            let mut pauses = pauses(PAUSE_FIRST, PAUSE_MAX);
            loop {
                match self.try_once(submit, &text).await {
                    Attempt::Recorded(receipt) => return Ok(Emitted::Recorded(receipt)),
                    Attempt::Never(error) => return Err(error),
                    Attempt::NotNow(why) => problem = why,
                }
                tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
            }
        };
        match tokio::time::timeout(deadline, tries).await {
            Ok(result) => result,
            Err(_) => Err(EmitError::Late { deadline, problem }),
        }
    }

    /// Sends the entry straight to the node if the spool is empty. Otherwise, or if the node cannot record it now, spools it after the
    /// entries that already wait, so that the order is kept.
    async fn record_or_keep(
        &self,
        submit: &mpsc::Sender<Submission>,
        spool: Option<&Spool>,
        id: EntryId,
        text: String,
        now: Timestamp,
    ) -> Result<Emitted, EmitError> {
        let Some(spool) = spool else { return self.record_in_time(submit, text).await };
        if spool.waiting().is_empty() {
            match tokio::time::timeout(self.0.deadline, self.try_once(submit, &text)).await {
                Ok(Attempt::Recorded(receipt)) => return Ok(Emitted::Recorded(receipt)),
                Ok(Attempt::Never(error @ EmitError::Refused(_))) => return Err(error),
                _ => {}
            }
        }
        self.keep(spool, text, now, true).await.map(|()| Emitted::Spooled(id))
    }

    async fn keep_or_count(
        &self,
        spool: Option<&Spool>,
        id: EntryId,
        text: String,
        now: Timestamp,
    ) -> Result<Emitted, EmitError> {
        let Some(spool) = spool else { return Err(EmitError::NoSpool) };
        match self.keep(spool, text, now, false).await {
            Ok(()) => Ok(Emitted::Spooled(id)),
            Err(EmitError::Lost(_)) => Ok(Emitted::Dropped),
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, spool: &Spool, text: String, now: Timestamp, sync: bool) -> Result<(), EmitError> {
        let kept = SpooledEntry { time: now.micros(), text };
        match tokio::time::timeout(self.0.deadline, spool.keep(kept, sync)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // The writer thread has already counted entries that it could not write.
                if !matches!(error, SpoolError::Write { .. }) {
                    self.0.ledger.lost(Cause::NoRoom, Some(1), now.micros());
                }
                // Wake the delivery task, which reports the loss when the node is available.
                spool.waiting().more.notify_one();
                Err(EmitError::Lost(error))
            }
            // The writer thread still spools the entry when the disk responds, or counts it as lost if the disk fails.
            Err(_) => {
                Err(EmitError::Late { deadline: self.0.deadline, problem: "the disk is not responding".to_owned() })
            }
        }
    }
}

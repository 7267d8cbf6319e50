//! Accepts the entries of an application.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use piperoll_format::entry::CallerEntry;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock, SystemClock};
use piperoll_protocol::node::Receipt;
use piperoll_redact::Redactor;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::Submission;
use super::captured::Captured;
use super::entry::{Category, Entry};
use super::ledger::{Cause, Ledger};
use super::metrics::Metrics;
use super::outcome::{EmitError, Emitted};
use super::policy::{DEADLINE_DEFAULT, LossPolicy, Policies};
use super::spool::{Kept, Spool, SpoolError};

/// Between two tries of a strict entry.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Hands entries over to the node on this machine. Clones share it.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) to: To,
    pub(super) policies: Policies,
    pub(super) deadline: Duration,
    pub(super) redactor: Redactor,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
    /// Cancelled first: nothing that can be recorded now should wait any longer.
    pub(super) closing: CancellationToken,
    /// What sends from the disk, and holds its folder.
    pub(super) delivery: TaskTracker,
    /// Operations that are under way, for [`super::RecordLayer`].
    pub(super) operations: TaskTracker,
    pub(super) is_closed: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
        self.stop.cancel();
    }
}

/// For what waits long and should keep nobody's folder locked.
pub(crate) struct WeakRecorder(Weak<Inner>);

impl WeakRecorder {
    pub(crate) fn upgrade(&self) -> Option<Recorder> {
        self.0.upgrade().map(Recorder)
    }
}

#[derive(Debug)]
pub(super) enum To {
    Node {
        submit: mpsc::Sender<Submission>,
        spool: Option<Arc<Spool>>,
    },
    /// For tests of applications.
    Memory(Captured),
}

/// What one try gave.
enum Tried {
    Recorded(Receipt),
    Never(EmitError),
    NotNow(String),
}

impl Recorder {
    pub(super) fn of(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// One that keeps entries in memory, for tests of an application without a node.
    pub fn capturing() -> (Self, Captured) {
        let captured = Captured::default();
        let inner = Inner {
            to: To::Memory(captured.clone()),
            policies: Policies::default(),
            deadline: DEADLINE_DEFAULT,
            redactor: Redactor::default(),
            ledger: Arc::new(Ledger::in_memory()),
            metrics: Arc::new(Metrics::new(None)),
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            delivery: TaskTracker::new(),
            operations: TaskTracker::new(),
            is_closed: AtomicBool::new(false),
        };
        (Self(Arc::new(inner)), captured)
    }

    /// What becomes of entries of this category.
    pub fn policy_of(&self, category: Category) -> LossPolicy {
        self.0.policies.of(category)
    }

    /// Whether there is a folder to keep entries in.
    fn can_keep(&self) -> bool {
        matches!(&self.0.to, To::Node { spool: Some(_), .. })
    }

    /// The policy for what has happened already: such an entry is kept on this machine rather than lost, where there is a folder.
    pub(crate) fn policy_after_the_fact(&self, category: Category) -> LossPolicy {
        match self.policy_of(category) {
            LossPolicy::Strict if self.can_keep() => LossPolicy::Spool,
            policy => policy,
        }
    }

    /// Hands an entry over, by the policy of its category.
    ///
    /// # Errors
    /// The entry was refused, or, if its policy is strict, not recorded in time, or it was lost and counted.
    pub async fn emit(&self, entry: Entry) -> Result<Emitted, EmitError> {
        let policy = self.policy_of(entry.category);
        self.emit_under(entry, policy).await
    }

    /// The same under another policy than that of its category.
    ///
    /// # Errors
    /// As for [`Self::emit`].
    pub async fn emit_under(&self, mut entry: Entry, policy: LossPolicy) -> Result<Emitted, EmitError> {
        if self.0.is_closed.load(Ordering::Acquire) {
            return Err(EmitError::Closed);
        }
        let (id, now) = (entry.id, SystemClock.now());
        if policy != LossPolicy::Strict && entry.occurred_at.is_none() {
            // It may be recorded much later. When it was made, and not now: the same entry emitted again is the same.
            entry.occurred_at = Some(entry.made);
        }
        let text = entry.to_text(&self.0.redactor);
        // What the node would refuse is refused here: a spool must not carry what can never arrive.
        CallerEntry::parse(text.as_bytes())?.check_size()?;
        let result = match &self.0.to {
            To::Memory(captured) => Ok(captured.take(id, &text, now)),
            To::Node { submit, spool } => match policy {
                LossPolicy::Strict => self.record_in_time(submit, text).await,
                LossPolicy::Spool => self.record_or_keep(submit, spool.as_deref(), id, text, now).await,
                LossPolicy::BestEffort => self.keep_or_count(spool.as_deref(), id, text, now).await,
            },
        };
        self.0.metrics.count(policy, &result);
        result
    }

    /// Waits until nothing waits on the disk and every loss is said; false when that took too long.
    pub async fn flush(&self, within: Duration) -> bool {
        let To::Node { spool: Some(spool), .. } = &self.0.to else { return true };
        let waiting = spool.waiting();
        let done = async {
            while !waiting.is_empty() || !self.0.ledger.is_clean() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(within, done).await.is_ok()
    }

    /// Waits for operations that are under way and for what waits on the disk, then takes nothing more; false when that took
    /// too long. What is left on the disk is sent when a recorder is opened on the same folder again, behind the last clone of
    /// this one.
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

    /// Runs something that [`Self::close`] waits for, whoever else does.
    pub(crate) fn operation<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.operations.spawn(work)
    }

    /// Cancelled when somebody closes it, or the last clone is gone.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    pub(crate) fn downgrade(&self) -> WeakRecorder {
        WeakRecorder(Arc::downgrade(&self.0))
    }

    /// Adds what is counted to an application's metrics, under names that begin with `piperoll_audit`.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// The same as text, for an application that has none of its own.
    pub fn metrics_text(&self) -> String {
        self.0.metrics.text()
    }

    async fn try_once(&self, submit: &mpsc::Sender<Submission>, text: &str) -> Tried {
        let (submission, answer) = Submission::new(text);
        if submit.send(submission).await.is_err() {
            return Tried::Never(EmitError::Closed);
        }
        match answer.await {
            Ok(Ok(receipt)) => Tried::Recorded(receipt),
            Ok(Err(error)) if error.is_passing() => Tried::NotNow(error.to_string()),
            Ok(Err(error)) => Tried::Never(EmitError::Refused(error)),
            Err(_) => Tried::Never(EmitError::Closed),
        }
    }

    /// Tries until the deadline, always with the same id.
    async fn record_in_time(&self, submit: &mpsc::Sender<Submission>, text: String) -> Result<Emitted, EmitError> {
        let deadline = self.0.deadline;
        let mut problem = "the node did not answer".to_owned();
        let tries = async {
            let mut pause = PAUSE_FIRST;
            loop {
                match self.try_once(submit, &text).await {
                    Tried::Recorded(receipt) => return Ok(Emitted::Recorded(receipt)),
                    Tried::Never(error) => return Err(error),
                    Tried::NotNow(why) => problem = why,
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        };
        match tokio::time::timeout(deadline, tries).await {
            Ok(result) => result,
            Err(_) => Err(EmitError::Late { deadline, problem }),
        }
    }

    /// Straight to the node while nothing waits; otherwise behind what does, so that the order is kept.
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
                Ok(Tried::Recorded(receipt)) => return Ok(Emitted::Recorded(receipt)),
                Ok(Tried::Never(error @ EmitError::Refused(_))) => return Err(error),
                _ => {}
            }
        }
        self.keep(spool, text, now, true).await.map(|()| Emitted::Kept(id))
    }

    async fn keep_or_count(
        &self,
        spool: Option<&Spool>,
        id: EntryId,
        text: String,
        now: Timestamp,
    ) -> Result<Emitted, EmitError> {
        let Some(spool) = spool else { return Err(EmitError::NoFolder) };
        match self.keep(spool, text, now, false).await {
            Ok(()) => Ok(Emitted::Kept(id)),
            Err(EmitError::Lost(_)) => Ok(Emitted::Dropped),
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, spool: &Spool, text: String, now: Timestamp, sync: bool) -> Result<(), EmitError> {
        let kept = Kept { time: now.micros(), text };
        match tokio::time::timeout(self.0.deadline, spool.keep(kept, sync)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // What could not be written was counted where it was written.
                if !matches!(error, SpoolError::Write { .. }) {
                    self.0.ledger.lost(Cause::NoRoom, Some(1), now.micros());
                }
                // Somebody has to say so when the node is there.
                spool.waiting().more.notify_one();
                Err(EmitError::Lost(error))
            }
            // It is kept when the disk answers, or counted when it fails.
            Err(_) => {
                Err(EmitError::Late { deadline: self.0.deadline, problem: "the disk does not answer".to_owned() })
            }
        }
    }
}

//! Where an application hands its entries over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use piperoll_shared::api::node::Receipt;
use piperoll_shared::log::entry::{CallerEntry, EntryError};
use piperoll_shared::log::ids::EntryId;
use piperoll_shared::log::redact::{BadName, Redactor};
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::net::clock::{Clock, SystemClock};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ClientError;
use super::batch::{Batcher, Submission};
use super::captured::Captured;
use super::delivery::Delivery;
use super::entry::{Category, Entry};
use super::ledger::{Cause, Ledger};
use super::metrics::Metrics;
use super::node::NodeClient;
use super::policy::{DEADLINE_DEFAULT, LossPolicy, Policies};
use super::spool::{Kept, Spool, SpoolError};

/// Bytes that may wait on the disk unless the application says otherwise: a day of an entry a second.
const SPOOL_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Entries on their way to the node at one time; whoever comes then waits, within his deadline.
const QUEUE_MAX: usize = 4_096;
/// Between two tries of a strict entry.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emitted {
    /// It is on the node's disk.
    Recorded(Receipt),
    /// It is kept on this machine, and will be recorded.
    Kept(EntryId),
    /// It was dropped and counted; the log will say so.
    Dropped,
}

/// Why an entry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// It can never be recorded as it is; nothing was.
    #[error("{0}")]
    Invalid(#[from] EntryError),
    /// The node said why; nothing was recorded.
    #[error("not recorded: {0}")]
    Refused(ClientError),
    /// The policy is strict and time is up. If the last try was cut short the entry may be recorded nevertheless; with the same
    /// id it can be emitted again.
    #[error("not recorded within {} ms: {problem}", deadline.as_millis())]
    Late { deadline: Duration, problem: String },
    /// It could be neither recorded nor kept, and was counted as lost.
    #[error("lost and counted: {0}")]
    Lost(SpoolError),
    #[error("the recorder is closed")]
    Closed,
}

/// Why a recorder was not made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("{0:?} needs a folder to keep entries in; give the recorder one, or make every category strict")]
    NoFolder(LossPolicy),
}

/// How a recorder is made.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct Builder {
    node: NodeClient,
    policies: Policies,
    deadline: Duration,
    folder: Option<PathBuf>,
    spool_bytes: u64,
    secret_names: Vec<String>,
    source: String,
}

impl Builder {
    /// What becomes of entries of a category that cannot be recorded at once. Without it `data` and `integration` are kept in
    /// the spool, and everything else is strict.
    pub fn policy(mut self, category: Category, policy: LossPolicy) -> Self {
        self.policies.set(category, policy);
        self
    }

    /// One policy for all categories.
    pub fn policy_for_all(mut self, policy: LossPolicy) -> Self {
        for category in Category::ALL {
            self.policies.set(category, policy);
        }
        self
    }

    /// How long emitting may take; 2 s without it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A folder of this process alone for what cannot be recorded at once, made with mode 0700.
    pub fn spool(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Bytes that may wait there; 64 MiB without it.
    pub fn spool_bytes_max(mut self, bytes: u64) -> Self {
        self.spool_bytes = bytes;
        self
    }

    /// Further names under which secrets stand, such as `ssn` or `card_*`.
    pub fn secret_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.secret_names.extend(names.into_iter().map(Into::into));
        self
    }

    /// The application's name, for what the log says about losses.
    pub fn source(mut self, name: impl Into<String>) -> Self {
        self.source = name.into();
        self
    }

    /// Opens the spool, and begins to send what waits in it. To be called inside a tokio runtime.
    pub fn open(self) -> Result<Recorder, OpenError> {
        let redactor = Redactor::new(&self.secret_names)?;
        let (spool, ledger) = match &self.folder {
            Some(folder) => {
                let spool = Spool::open(folder, self.spool_bytes)?;
                let ledger = Ledger::open(folder)
                    .map_err(|e| SpoolError::Open { folder: folder.clone(), problem: e.to_string() })?;
                (Some(Arc::new(spool)), ledger)
            }
            None if self.policies.all_strict() => (None, Ledger::in_memory()),
            None => return Err(OpenError::NoFolder(LossPolicy::Spool)),
        };
        let ledger = Arc::new(ledger);
        let (submit, submissions) = mpsc::channel(QUEUE_MAX);
        let (stop, delivering) = (CancellationToken::new(), TaskTracker::new());
        let metrics = Arc::new(Metrics::new(spool.as_ref().map(|spool| Arc::clone(spool.waiting()))));
        // Ends with the last recorder.
        tokio::spawn(Batcher::new(self.node.clone(), self.deadline).run(submissions));
        if let Some(spool) = &spool {
            let delivery = Delivery {
                node: self.node.clone(),
                spool: Arc::clone(spool),
                ledger: Arc::clone(&ledger),
                metrics: Arc::clone(&metrics),
                source: self.source,
            };
            delivering.spawn(delivery.run(stop.clone()));
        }
        delivering.close();
        let to = To::Node { submit, spool };
        let inner = Inner {
            to,
            policies: self.policies,
            deadline: self.deadline,
            redactor,
            ledger,
            metrics,
            stop,
            delivery: delivering,
        };
        Ok(Recorder(Arc::new(inner)))
    }
}

/// Hands entries over to the node on this machine. Clones share it.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    to: To,
    policies: Policies,
    deadline: Duration,
    redactor: Redactor,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// What sends from the disk, and holds its folder.
    delivery: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
enum To {
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
    /// For the node whose socket is at `socket`; nothing is connected yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn builder(socket: &Path) -> Result<Builder, ClientError> {
        Ok(Self::builder_for(NodeClient::new(socket)?))
    }

    /// For a node that is reached in another way.
    pub fn builder_for(node: NodeClient) -> Builder {
        Builder {
            node,
            policies: Policies::default(),
            deadline: DEADLINE_DEFAULT,
            folder: None,
            spool_bytes: SPOOL_BYTES_DEFAULT,
            secret_names: Vec::new(),
            source: String::new(),
        }
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
            delivery: TaskTracker::new(),
        };
        (Self(Arc::new(inner)), captured)
    }

    /// What becomes of entries of this category.
    pub fn policy_of(&self, category: Category) -> LossPolicy {
        self.0.policies.of(category)
    }

    /// Whether there is a folder to keep entries in.
    pub(crate) fn can_keep(&self) -> bool {
        matches!(&self.0.to, To::Node { spool: Some(_), .. })
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
        let id = entry.id;
        let now = SystemClock.now();
        if policy != LossPolicy::Strict && entry.occurred_at.is_none() {
            // It may be recorded much later.
            entry.occurred_at = Some(now);
        }
        let text = entry.to_text();
        let text = self.0.redactor.entry(&text).into_owned();
        // What the node would refuse is refused here: a spool must not carry what can never arrive.
        CallerEntry::parse(text.as_bytes())?;
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

    /// Ends the tasks behind it. What waits on the disk is sent when a recorder is opened on the same folder again.
    pub async fn close(self, within: Duration) -> bool {
        let flushed = self.flush(within).await;
        self.0.stop.cancel();
        self.0.delivery.wait().await;
        flushed
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
        let Some(spool) = spool else { return Err(EmitError::Closed) };
        match self.keep(spool, text, now, false).await {
            Ok(()) => Ok(Emitted::Kept(id)),
            Err(EmitError::Lost(_)) => Ok(Emitted::Dropped),
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, spool: &Spool, text: String, now: Timestamp, sync: bool) -> Result<(), EmitError> {
        let kept = Kept { time: now.micros(), text };
        spool.keep(kept, sync).await.map_err(|error| {
            let cause = if matches!(error, SpoolError::Full { .. }) { Cause::NoRoom } else { Cause::Unwritable };
            self.0.ledger.lost(cause, Some(1), now.micros());
            // Somebody has to say so when the node is there.
            spool.waiting().more.notify_one();
            EmitError::Lost(error)
        })
    }
}

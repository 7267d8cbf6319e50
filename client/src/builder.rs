//! Configures and opens a recorder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use piperoll_protocol::node::GAP_TEXT_BYTES_MAX;
use piperoll_redact::{BadName, Redactor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::Batcher;
use super::delivery::Delivery;
use super::entry::Category;
use super::error::ClientError;
use super::loss_counters::LossCounters;
use super::metrics::Metrics;
use super::node::NodeClient;
use super::policy::{DEADLINE_DEFAULT, DeliveryPolicy, Policies};
use super::recorder::{Backend, Inner, Recorder};
use super::spool::{Spool, SpoolError};

/// Default limit of the spool: about one day at one entry per second.
const SPOOL_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Maximum number of entries queued for the node. Further callers wait for room, at most until the deadline.
const QUEUE_MAX: usize = 4_096;

/// Reason why a recorder cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A name in [`Builder::secret_names`] would match everything or nothing.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The policy of a category needs a spool, but no spool is set.
    #[error("the policy {0:?} needs a spool; set a spool directory, or make every category strict")]
    NoSpool(DeliveryPolicy),
    /// The text of [`Builder::source`] is malformed.
    #[error("the source is longer than {GAP_TEXT_BYTES_MAX} bytes or contains control characters")]
    Source,
}

/// Settings of a [`Recorder`].
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

impl Recorder {
    /// Starts building a recorder for the node whose socket is at `socket`. Does not connect yet.
    ///
    /// # Errors
    /// Currently none; reserved for transports that need preparation.
    pub fn builder(socket: &Path) -> Result<Builder, ClientError> {
        Ok(Self::builder_for(NodeClient::new(socket)?))
    }

    /// Starts building a recorder that uses the given client, for a node that is not reached through its socket.
    pub fn builder_for(node: NodeClient) -> Builder {
        Builder::new(node)
    }
}

impl Builder {
    fn new(node: NodeClient) -> Self {
        Self {
            node,
            policies: Policies::default(),
            deadline: DEADLINE_DEFAULT,
            folder: None,
            spool_bytes: SPOOL_BYTES_DEFAULT,
            secret_names: Vec::new(),
            source: String::new(),
        }
    }

    /// Sets the policy for a category's entries when they cannot be recorded immediately. By default, `data` and `integration`
    /// are spooled, and all other categories, including custom ones, are strict.
    pub fn policy(mut self, category: Category, policy: DeliveryPolicy) -> Self {
        self.policies.set(category, policy);
        self
    }

    /// Sets one policy for all categories.
    pub fn policy_for_all(mut self, policy: DeliveryPolicy) -> Self {
        self.policies.set_all(policy);
        self
    }

    /// Sets how long emitting may take; 2 s by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the spool directory, which belongs to this process alone and is created with mode 0700.
    pub fn spool(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Sets how many bytes may wait in the spool; 64 MiB by default.
    pub fn spool_bytes_max(mut self, bytes: u64) -> Self {
        self.spool_bytes = bytes;
        self
    }

    /// Adds names whose values are masked, such as `ssn` or `card_*`.
    pub fn secret_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.secret_names.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the application's name, which is recorded in entries about losses.
    pub fn source(mut self, name: impl Into<String>) -> Self {
        self.source = name.into();
        self
    }

    /// Opens the spool, and starts to send the entries in it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the spool cannot be used, or a setting is malformed; see [`OpenError`].
    pub fn open(self) -> Result<Recorder, OpenError> {
        let redactor = Redactor::new(&self.secret_names)?;
        if self.source.len() > GAP_TEXT_BYTES_MAX || self.source.chars().any(char::is_control) {
            return Err(OpenError::Source);
        }
        let (spool, ledger) = match &self.folder {
            Some(folder) => {
                let (spool, ledger) = Spool::open(folder, self.spool_bytes)?;
                (Some(Arc::new(spool)), ledger)
            }
            None if self.policies.all_strict() => (None, Arc::new(LossCounters::in_memory())),
            None => return Err(OpenError::NoSpool(DeliveryPolicy::Spool)),
        };
        let (submit, submissions) = mpsc::channel(QUEUE_MAX);
        let (stop, delivering) = (CancellationToken::new(), TaskTracker::new());
        let metrics = Arc::new(Metrics::new(spool.as_ref().map(|spool| Arc::clone(spool.waiting()))));
        // This task ends when the last recorder is dropped.
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
        let backend = Backend::Node { submit, spool };
        let inner = Inner {
            backend,
            policies: self.policies,
            deadline: self.deadline,
            redactor,
            ledger,
            metrics,
            stop,
            closing: CancellationToken::new(),
            delivery: delivering,
            operations: TaskTracker::new(),
            is_closed: AtomicBool::new(false),
        };
        Ok(Recorder::of(inner))
    }
}

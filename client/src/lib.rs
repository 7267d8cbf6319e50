//! Records audit entries of an application in a tamper-evident log.
//!
//! A [`Recorder`] sends each [`Entry`] to the Piperoll node on the same machine, over its Unix socket. [`Recorder::emit`] returns
//! after the entry is synced to the node's disk. If the node cannot record it, the [`DeliveryPolicy`] of its [`Category`]
//! decides: the call fails, or the entry waits in a spool on the same machine. No entry is lost silently: the log records how
//! many were lost.
//!
//! # Example
//!
//! ```
//! use piperoll_client::{Category, Changes, Entry, Outcome, Recorder};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In production: Recorder::builder("/run/piperoll/node.sock".as_ref())?.spool("/var/lib/app/audit".as_ref()).open()?
//! let (recorder, recorded) = Recorder::in_memory();
//!
//! let entry = Entry::new(Category::User, "user.role.update")
//!     .user("alice")
//!     .entity("user", "bob")
//!     .changes(Changes::default().with("role", "viewer", "admin"))
//!     .outcome(Outcome::Success);
//! recorder.emit(entry).await?;
//!
//! assert_eq!(recorded.entries()[0]["changes"][0]["new"], "admin");
//! # Ok(())
//! # }
//! ```
//!
//! # Secrets
//!
//! Values under names such as `password` or `api_key`, and texts that look like credentials, are masked before an entry leaves
//! the process. [`Secret`] marks a field by its type, and [`Builder::secret_names`] adds names.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `tower` | yes | [`RecordLayer`], which records every request that changes something or is denied, and [`testing`] |
//! | `metrics` | no | `Recorder::register` and `Recorder::metrics_text`, counters for Prometheus |
//! | `loopback-https` | no | `NodeClient::over_https`, for applications that cannot reach the socket, for example in containers |
#![deny(missing_docs)]

mod batch;
mod builder;
mod changes;
mod clock;
mod delivery;
mod entry;
mod error;
#[cfg(feature = "tower")]
mod layer;
mod loss_counters;
mod metrics;
mod node;
mod outcome;
mod pauses;
mod policy;
#[cfg(feature = "tower")]
mod proxies;
mod recorded_entries;
mod recorder;
mod secret;
mod spool;
#[cfg(feature = "tower")]
pub mod testing;
#[cfg(feature = "loopback-https")]
mod tls;
mod transport;

pub use builder::{Builder, OpenError};
pub use changes::{Change, Changes};
pub use entry::{Category, Entry, Outcome};
pub use error::ClientError;
#[cfg(feature = "tower")]
pub use layer::{AuditContext, Caller, RecordLayer, RecordService};
pub use node::{LineStream, NodeClient};
pub use outcome::{EmitError, Emitted};
pub use piperoll_format::entry::EntryError;
pub use piperoll_format::ids::EntryId;
pub use piperoll_format::time::Timestamp;
pub use piperoll_protocol::node::Receipt;
pub use policy::DeliveryPolicy;
#[cfg(feature = "tower")]
pub use proxies::{Peer, ProxyHeader, TrustedProxies};
pub use recorded_entries::RecordedEntries;
pub use recorder::Recorder;
pub use secret::Secret;
pub use spool::SpoolError;

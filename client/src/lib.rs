//! Records audit entries from an application.
//!
//! [`Recorder`] takes an [`Entry`] and hands it to the node on the same machine. What becomes of an entry that cannot be
//! recorded at once is decided by its category's [`LossPolicy`]; none is ever lost without the log saying so. [`RecordLayer`]
//! records every request that changes something, or that was denied. docs/recording.md tells all of it.

mod batch;
mod builder;
mod captured;
mod changes;
mod delivery;
mod entry;
mod error;
mod layer;
mod ledger;
mod metrics;
mod node;
mod outcome;
mod policy;
mod proxies;
mod recorder;
mod secret;
mod spool;
pub mod testing;

pub use builder::{Builder, OpenError};
pub use captured::Captured;
pub use changes::{Change, Changes};
pub use entry::{Category, Entry, Outcome};
pub use error::ClientError;
pub use layer::{Activity, Caller, RecordLayer, RecordService};
pub use node::{LineStream, NodeClient};
pub use outcome::{EmitError, Emitted};
pub use piperoll_format::entry::EntryError;
pub use piperoll_format::ids::EntryId;
pub use piperoll_format::time::Timestamp;
pub use piperoll_protocol::node::Receipt;
pub use policy::LossPolicy;
pub use proxies::{Peer, ProxyHeader, TrustedProxies};
pub use recorder::Recorder;
pub use secret::Secret;
pub use spool::SpoolError;

//! A tower layer that records one entry for every request that changes something, and for every denied one.
//!
//! The handler adds details through [`AuditContext`], a request extension. The entry is recorded even if the handler adds
//! nothing: if handlers had to call a hook, every route whose author forgot the call would be missing from the log.

mod caller;
mod context;
mod refusals;
mod request_entry;
mod service;

pub use caller::Caller;
pub use context::AuditContext;
pub(crate) use context::INTENT;
pub use service::{RecordLayer, RecordService};

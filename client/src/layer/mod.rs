//! A tower layer that records one entry for every request that changes something, and for every denied one.
//!
//! The handler adds details through [`AuditContext`], a request extension. The entry is written even if the handler adds nothing: hooks
//! that handlers must call would miss every route whose author forgot to call them.

mod caller;
mod context;
mod refusals;
mod request_entry;
mod service;

pub use caller::Caller;
pub use context::AuditContext;
pub(crate) use context::INTENT;
pub use service::{RecordLayer, RecordService};

//! A tower layer that records one entry for every request that changes something, and for every denied one.
//!
//! The handler says more through [`AuditContext`], a request extension. If it says nothing the entry is written all the same: hooks
//! that wait to be called miss what nobody thought of.

mod caller;
mod context;
mod refusals;
mod service;
mod words;

pub use caller::Caller;
pub use context::AuditContext;
pub(crate) use context::INTENT;
pub use service::{RecordLayer, RecordService};

//! A tower layer that records one entry for every request that changes something, and for every denied one.
//!
//! The handler says more through [`Activity`], a request extension. If it says nothing the entry is written all the same: hooks
//! that wait to be called miss what nobody thought of.

mod activity;
mod caller;
mod refusals;
mod service;
mod words;

pub use activity::Activity;
pub(crate) use activity::INTENT;
pub use caller::Caller;
pub use service::{RecordLayer, RecordService};

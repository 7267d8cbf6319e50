//! The cluster authority: one directory for the administrator, one self-contained folder per machine.
//!
//! Private keys of the authority never leave the administrator's directory. A node gets its own key and its own HMAC secret; an
//! aggregator gets its own key and the secrets that it needs to check each node.

mod authority;
mod error;
mod files;
mod folder;
mod issue;
mod keys;
mod members;
mod place;
mod random;
mod trust;

pub use authority::{Authority, LifeChange};
pub use error::CertsError;
pub use keys::KeysChanged;
pub use members::{KeyHistory, KeyUse, Member, MemberKind, Retired};
pub use place::{AggregatorPlace, Layout, NodePlace};

//! Who may read what: tokens, sessions, scopes, rate limits, and searches that people keep.

pub mod rate_limit;
pub(crate) mod saved_searches;
pub mod scope;
pub mod sessions;
pub mod tokens;

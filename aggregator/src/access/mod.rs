//! Access control: tokens, sessions, scopes, rate limits, and saved searches.

pub mod rate_limit;
pub(crate) mod saved_searches;
pub mod scope;
pub mod sessions;
pub mod tokens;

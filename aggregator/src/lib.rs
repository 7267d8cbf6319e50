//! The reader: asks every node of the roster, merges what they answer, checks every row, and says by name
//! who did not answer. Keeps no rows and no second kind of log.

mod aggregator;
mod api;
mod ask;
mod audit;
mod cluster;
pub mod config;
mod export;
mod fanout;
mod feed;
mod link;
mod member;
mod membership;
mod merge;
mod metrics;
mod page;
mod placed;
mod proving;
mod query;
pub mod rate;
mod read;
pub mod scope;
mod searches;
pub mod session;
mod state;
mod stream;
mod tail;
pub mod tokens;
mod ui;
mod witness;

pub use aggregator::{Aggregator, StartError};
pub use api::{api_routes, openapi_json};
pub use link::LocalLog;

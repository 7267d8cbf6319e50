//! `piperoll query|tail|show|export|stats|verify|nodes`: commands that query the aggregator.

mod browse;
mod bundle;
mod connection;
mod export;
mod nodes;
mod outcome;
mod query;
pub(crate) mod question;
mod stats;
mod tail;
mod target;
mod verdict;
mod verify;

pub(crate) use browse::browse;
pub(crate) use connection::{Answer, Connection, PAGE_TIMEOUT, https_client_at};
pub(crate) use export::export;
pub(crate) use nodes::nodes;
pub(crate) use outcome::{FINAL, count_problem, end_problem, erased_words};
pub(crate) use query::{query, show};
pub(crate) use stats::stats;
pub(crate) use tail::tail;
pub(crate) use verdict::verdict;
pub(crate) use verify::verify;

//! Queries every node of the cluster, merges and verifies their answers, and names the nodes that did not answer.
//!
//! An aggregator stores no entries. For every node, it stores the state of its witness (`cluster/witness/`).

pub mod access;
mod aggregator;
mod answer;
mod archiving;
mod audit;
mod cluster;
pub mod config;
mod http;
mod metrics;
mod scan;
mod state;
mod tasks;
mod web;
mod witness;

pub use aggregator::{Aggregator, StartError};
pub use cluster::connection::LocalLog;
pub use http::{api_routes, openapi_json};

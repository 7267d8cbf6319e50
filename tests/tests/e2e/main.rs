//! End-to-end tests between real processes: one binary, one module per promise.

#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod bad_input;
mod bundle;
mod certificates;
mod contract;
mod crash;
mod damaged;
mod documents;
mod doors;
mod durable;
mod erasure;
mod faults;
mod flagged;
mod forward;
mod found_over_nodes;
mod fuzzed;
mod golden_tree;
mod hostile;
mod import;
mod index_crash;
mod intake;
mod judging;
mod keys;
mod local;
mod lying_node;
mod many_nodes;
mod membership;
mod memory;
mod packaging;
mod paging;
mod proven;
mod recording;
mod report;
mod retention;
mod scope;
mod sessions;
mod stats;
mod storage;
mod strangers;
mod tail;
mod tamper;
mod upgrade;
mod witness;
mod witness_memory;

//! `piperoll report`: reports over all nodes that need more than a filter.
//!
//! Every report is built from rows that were read and verified, and ends with the statement about which nodes answered.

mod access;
mod asked;
mod brute_force;
mod event;
mod four_eyes;
mod render;
mod run;
mod subject;

pub(crate) use run::run;

//! `piperoll report`: questions that take more than a filter, answered over all nodes.
//!
//! Every report is made from rows that were read and verified, and ends with the statement about who answered.

mod access;
mod asked;
mod brute_force;
mod event;
mod four_eyes;
mod render;
mod run;
mod subject;

pub(crate) use run::run;

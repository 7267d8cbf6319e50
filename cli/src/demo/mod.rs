//! `piperoll demo`: a whole cluster on loopback, and what is worth seeing: one merged timeline, an edited row caught, a
//! killed node named, a complete answer after its return, a rewritten history remembered, evidence checked offline.
//!
//! Nothing here is a mock: the daemons are processes of this same program, the commands shown are run as
//! shown, and every step is checked by exit code and content.

mod cluster;
mod history;
mod run;
mod scenario;
mod step;
mod tamper;

pub(crate) use run::run;

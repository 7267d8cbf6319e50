//! `piperoll demo`: runs a whole cluster on loopback and demonstrates one merged timeline, the detection of an edited row, an
//! answer that names a killed node, a complete answer after its return, the detection of a rewritten history, evidence
//! that is checked offline, and an archive that answers for a machine that is gone.
//!
//! Nothing here is a mock: the daemons are processes of this same program, the commands shown are run as
//! shown, and every step is checked by exit code and content.

mod archive;
mod cluster;
mod history;
mod run;
mod scenario;
mod step;
mod tamper;

pub(crate) use run::run;

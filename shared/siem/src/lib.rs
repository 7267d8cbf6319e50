//! Converts an entry to formats of other systems: OCSF, ECS, CEF, and syslog around them.
//!
//! Every format is a function of one stored row and of nothing else, so golden files test it (`shared/siem/tests/siem.rs`). No
//! format is itself the signed text; only `native` contains the bytes of the body unchanged. docs/forwarding.md has the tables of
//! fields and their sources.

mod cef;
mod ecs;
mod event;
mod ocsf;
mod parts;
mod syslog;
mod text;

pub use event::{Event, Format, OmittedFields};
pub use syslog::{ENTERPRISE_DEFAULT, SYSLOG_BYTES_MIN, Syslog};

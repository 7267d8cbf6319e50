//! Converts an entry to the formats of other systems: OCSF, ECS and CEF, each optionally in a syslog message.
//!
//! Every format is a pure function of one stored row, so golden files can test it (`shared/siem/tests/siem.rs`). None of the
//! formats is the signed text itself; only `native` contains the bytes of the body unchanged. The tables in docs/forwarding.md
//! list the fields and their sources.

mod cef;
mod ecs;
mod event;
mod ocsf;
mod parts;
mod syslog;
mod text;

pub use event::{Event, Format, OmittedFields};
pub use syslog::{ENTERPRISE_DEFAULT, SYSLOG_BYTES_MIN, Syslog};

//! Sources other than the socket, for programs that cannot use the socket: a syslog listener on loopback, the journal, files.
//!
//! Records from these sources are claims: the sender gets no receipt, and nothing proves who wrote them. The field `via` of
//! every entry shows this. Records of a journal or a file are read from a stored position, and their ids are derived from their
//! positions, so that a crash neither loses nor duplicates a record. A record that cannot be mapped still becomes an entry,
//! which contains the record.

mod attempt;
mod config;
mod counts;
mod files;
mod join;
mod journal;
mod mapping;
mod mark;
mod opened;
pub mod parsers;
mod pipeline;
mod record;
mod safe;
mod syslog;
mod text;

pub(crate) use config::RawIntake;
pub use config::{IntakeConfig, Source};
pub(crate) use counts::IntakeCounts;
pub use files::unpacked;
pub use join::{Joined, Joiner};
pub use mapping::{BuiltIn, Join, MapError, Mapped, Mapping, Outcome, Pairs};
pub(crate) use opened::Intake;
pub use opened::IntakeError;

//! Ways in besides the socket, for what cannot speak to it: a syslog listener on loopback, the journal, files.
//!
//! What comes in here is somebody's claim: nobody asks for a receipt, and nothing says who wrote it. `via` says so in every entry. Records
//! of a journal or a file are read from a place that is kept, with ids made of where they stand, so that a crash neither loses nor doubles
//! one. What cannot be mapped becomes an entry all the same, that holds the record.

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

pub(crate) use config::TypedIntake;
pub use config::{IntakeConfig, Source};
pub(crate) use counts::IntakeCounts;
pub use files::unpacked;
pub use join::{Joined, Joiner};
pub use mapping::{BuiltIn, Join, MapError, Mapped, Mapping, Outcome, Pairs};
pub(crate) use opened::Intake;
pub use opened::IntakeError;

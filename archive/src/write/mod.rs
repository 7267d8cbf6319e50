//! Writes steps. An attempt that was interrupted at any point is repeated from its plan; no row is committed twice.

mod commit;
mod error;
mod gather;
mod layout;
mod objects;
mod plans;
mod replace;
mod settings;
mod source;
mod spool;
mod state;
mod step;
mod writer;

pub use error::WriteError;
pub use replace::Replaced;
pub use settings::{Settings, initialize};
pub use source::{Chunk, Due, Source, SourceError};
pub use state::{Alarm, AlarmKind, PendingDeletion, StateError, newest_seen};
pub use writer::{Committed, StepOutcome, Writer};

//! Records of an archive: the objects other than the rows, and the names of all objects.

mod about;
pub mod names;
mod plan;
mod signed;
mod step;
mod tree;

pub(crate) use about::ABOUT_BYTES_MAX;
pub use about::About;
pub use plan::{FileErasure, Plan, PlannedFile, PlannedLog};
pub use signed::{ArchiveKeys, Digest, RecordError, digest_of, read_signed};
pub use step::{
    ArchiveStart, FileRecord, LogRange, Missing, ObjectRecord, Replacement, RowOfFile, Run, STEP_BYTES_MAX, Step,
    StepKind,
};
pub use tree::{LogTree, TREE_BYTES_MAX, Trees};

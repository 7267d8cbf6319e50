//! Verifies an archive with public keys only, without the cluster.

mod check;
mod file_check;
mod files;
mod removed;
mod report;
mod resume;

pub use check::{Scope, verify, verify_resumed};
pub use report::{Finding, FindingKind, Report};
pub use resume::{Resume, ResumeError};

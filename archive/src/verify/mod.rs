//! Verifies an archive with public keys only, without the cluster.

mod check;
mod file_check;
mod removed;
mod report;

pub use check::{Scope, verify};
pub use report::{Finding, FindingKind, Report};

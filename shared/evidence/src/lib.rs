//! Evidence for use outside the cluster: bundles and their verification, CSV, and the readable report (docs/format.md,
//! docs/verify-by-hand.md).

pub mod bundle;
pub mod csv;

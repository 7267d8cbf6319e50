//! Where a source or a destination starts the first time.

use serde::Deserialize;

/// Where forwarding, or reading a source, begins at the first start.
#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TypedFrom {
    #[default]
    Beginning,
    Now,
}

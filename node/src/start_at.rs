//! Starting point of a source or a destination at its first start.

use serde::Deserialize;

/// Starting point of forwarding, or of reading a source, at the first start.
#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TypedFrom {
    #[default]
    Beginning,
    Now,
}

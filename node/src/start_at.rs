//! Position at which a source or a destination begins when it is started for the first time.

use serde::Deserialize;

/// Position at which forwarding, or reading a source, begins when it is started for the first time.
#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawFrom {
    #[default]
    Beginning,
    Now,
}

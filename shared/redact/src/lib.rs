//! Secrets in what a caller says: found by the names they stand under and by how they look, and masked before anything is
//! signed, kept or sent (docs/recording.md, "Secrets").

mod entry;
mod mask;
mod members;
mod names;
mod redactor;
mod same;
#[cfg(test)]
mod tests;
mod texts;
mod tree;
mod values;
mod walk;

pub use mask::{BadName, MARK, MASK};
pub use redactor::Redactor;
pub use same::{is_same_but_for_masks, is_same_entry};

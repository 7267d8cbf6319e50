//! Masks secrets in the input of callers. Secrets are recognized by name and by form, and masked before an entry is signed,
//! stored or forwarded (docs/recording.md, "Secrets").

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
pub use same::is_same_entry;

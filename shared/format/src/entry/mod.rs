//! Entries: the client's fields, the node's fields, and the exact signed bytes.
//!
//! The body is written once. All later code reads the stored bytes; none of it re-serializes them.

mod body;
mod caller;
mod caller_fields;
mod form;
mod prefix;
mod rule_input;
mod terms;

pub use body::{NodeFields, lifecycle, write_body};
pub use caller::{CallerEntry, caller_object};
pub use caller_fields::{FieldLimit, field_limit};
pub use form::{CALLER_TEXTS, NOT_ONE_ENTRY, is_one_entry, is_one_object};
pub use prefix::Prefix;
pub use rule_input::{Amount, Login, RuleInput, split_words};
pub use terms::{CATEGORIES, EntryError, FORMAT_VERSION, NODE_CATEGORY, OUTCOMES, is_category};

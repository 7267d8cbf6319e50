//! Finds secrets in running text with a table of named contexts, each of which reads the text once. In examples, `S` is the
//! secret.

mod addresses;
pub(super) mod commands;
mod contexts;
mod examined;
mod headers;
mod keyed;
mod markup;
mod phrases;
mod scan;
mod shapes;
mod sql;
mod token;

pub(super) use contexts::{Texts, context_names};
pub(super) use examined::is_prose_header;
pub(super) use shapes::{is_basic, is_pem_begin, is_pem_end};

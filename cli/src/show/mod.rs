//! Prints rows and lists of nodes. Text from entries is always escaped.

mod detail;
mod nodes;
mod rows;
mod terminal;
mod text;

pub(crate) use detail::detail;
pub(crate) use nodes::{all_is_well, envelope_summary, node_table};
pub(crate) use rows::{Axis, RowStream, RowTable};
pub(crate) use terminal::{counted, group_digits, paint, say, width};

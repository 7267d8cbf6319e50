//! Tables and files of a log: schema, rows, tiles, the log start, and functions that read them with plain SQL.

pub(super) mod erased;
pub(super) mod error;
pub(super) mod health;
pub(super) mod holds;
pub(super) mod keys;
pub(super) mod log_dir;
pub(super) mod log_start;
pub(super) mod mac_epochs;
pub(super) mod new_entry;
pub(super) mod readers;
pub(super) mod rows;
pub(super) mod schema;
pub(super) mod tiles;
pub(super) mod time_search;

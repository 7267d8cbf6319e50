//! The archive of a cluster: verified rows on object storage, as Parquet files that other engines query, with the proofs that lead
//! to the nodes' checkpoints ([docs/archive.md](../../docs/archive.md)).
//!
//! Modules depend only on those before them: [`store`] (objects that are created once) → [`record`] (plans, steps and hashes) →
//! [`file`](mod@file) (rows as Parquet) → [`history`] (the chain of steps) → [`read`], [`mod@write`] and [`verify`].

pub mod file;
pub mod history;
pub mod read;
pub mod record;
pub mod row;
pub mod store;
pub mod verify;
pub mod write;

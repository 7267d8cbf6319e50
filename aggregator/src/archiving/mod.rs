//! Archives the rows of the cluster's nodes: reads them with their checkpoints, and passes them to the archive's writer.

pub(crate) mod archiver;
mod due;
mod holds;
mod mirrored;
mod node_rows;
mod removal;

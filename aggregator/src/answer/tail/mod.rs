//! The live tail: merges the new entries of all nodes.
//!
//! Every node is followed from its own position. A row waits until every answering node has reported that it has no
//! earlier row, but no longer than `GRACE`; a row that arrives after its turn is emitted at once and marked as late. A
//! node that is silent for longer than `GRACE` is reported as missing, and rows no longer wait for it.
//!
//! A tail that begins in the past first reads a backlog. During the backlog, rows wait for every answering node, so
//! that all rows are in order (up to `BACKLOG_WAIT_MAX` for a node that sends nothing), and the nodes wait for the
//! client. Once the client has read the backlog, the tail is live: nodes do not wait for the client, and a client that
//! lags too far is dropped. It can resume with a backlog.

mod event;
mod follow;
mod order;
mod position;
mod run;

pub(crate) use event::{Event, NodeEvent};
pub(crate) use position::Positions;
pub(crate) use run::{Events, start};

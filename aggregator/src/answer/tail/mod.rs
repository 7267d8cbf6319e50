//! The live tail: merges the new entries of all nodes.
//!
//! Every node is followed from its own position. A row waits until every node that answers has said that it has nothing
//! earlier, but no longer than the grace; one that comes after its turn is emitted at once and marked as late. A node that is
//! silent for longer than the grace is reported as missing, and no row waits for it any more.
//!
//! A tail that begins in the past first reads a backlog. Then rows wait for every node that answers, so that all are in order
//! (up to `BACKLOG_WAIT_MAX` for a node that gives nothing), and the nodes wait for the client. Once the client has read everything there is, the tail is live: nodes do not wait for
//! clients, and one that falls behind is dropped. It resumes with a backlog.

mod event;
mod follow;
mod order;
mod position;
mod run;

pub(crate) use event::{Event, NodeEvent};
pub(crate) use position::Positions;
pub(crate) use run::{Events, start};

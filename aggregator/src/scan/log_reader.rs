//! Reader of one log's rows, from the node or from the archive.

use std::sync::Arc;

use piperoll_format::ids::Generation;
use piperoll_format::order::Key;
use piperoll_query::stats::Counter;

use crate::cluster::connection::{Channel, Failure};
use crate::cluster::node_handle::NodeHandle;
use crate::config::FanOutLimits;
use crate::scan::archive_reader::ArchiveReader;
use crate::scan::node_reader::{NodeCounters, NodeReader};
use crate::scan::plan::NodeRequest;
use crate::scan::verified_row::VerifiedRow;

/// Reader of one log's rows.
pub(crate) enum LogReader {
    Node(Box<NodeReader>),
    Archive(Box<ArchiveReader>),
}

/// A log as it was when the answer began.
pub(crate) struct LogHead {
    pub(crate) generation: Generation,
    pub(crate) head_seq: Option<u64>,
    pub(crate) oldest_seq: Option<u64>,
}

impl LogReader {
    /// Opens the log that a request names.
    pub(crate) async fn open(
        member: &Arc<NodeHandle>,
        asked: &NodeRequest,
        limits: &FanOutLimits,
        lane: Channel,
    ) -> Result<Self, Failure> {
        Ok(match &asked.archived {
            Some(rows) => Self::Archive(Box::new(ArchiveReader::open(member, asked, rows, limits)?)),
            None => Self::Node(Box::new(NodeReader::open(member, asked, limits, lane).await?)),
        })
    }

    pub(crate) fn head(&self) -> LogHead {
        match self {
            Self::Node(reader) => LogHead {
                generation: reader.head.generation,
                head_seq: reader.head.head_seq,
                oldest_seq: reader.head.oldest_seq,
            },
            Self::Archive(reader) => LogHead {
                generation: reader.generation,
                head_seq: reader.rows.part.seqs.end.checked_sub(1),
                oldest_seq: None,
            },
        }
    }

    /// Returns the next row; `None` after the last one. Interrupting the call loses no data.
    pub(crate) async fn next(&mut self) -> Result<Option<VerifiedRow>, Failure> {
        match self {
            Self::Node(reader) => reader.next().await,
            Self::Archive(reader) => reader.next().await,
        }
    }

    pub(crate) fn counters(&self) -> &NodeCounters {
        match self {
            Self::Node(reader) => &reader.counters,
            Self::Archive(reader) => &reader.counters,
        }
    }

    pub(crate) fn counters_mut(&mut self) -> &mut NodeCounters {
        match self {
            Self::Node(reader) => &mut reader.counters,
            Self::Archive(reader) => &mut reader.counters,
        }
    }

    /// Whether the log is still being read, although nothing has been found for a while.
    pub(crate) fn advances(&mut self) -> bool {
        match self {
            Self::Node(reader) => reader.advances(),
            Self::Archive(reader) => reader.advances(),
        }
    }

    /// Stops reading early and returns the position that was reached; `None` if it is not known.
    pub(crate) fn stop_here(&mut self) -> Option<Key> {
        match self {
            Self::Node(reader) => reader.stop_here(),
            Self::Archive(reader) => reader.stop_here(),
        }
    }

    /// Returns the rows that arrived before a failure and were still waiting for their proof.
    pub(crate) fn rest(&mut self) -> Vec<VerifiedRow> {
        match self {
            Self::Node(reader) => reader.rest().collect(),
            Self::Archive(reader) => reader.rest(),
        }
    }

    /// Returns the node's own counts, if it was asked to count.
    pub(crate) fn take_counted(&mut self) -> Option<Box<Counter>> {
        match self {
            Self::Node(reader) => reader.counted.take().map(Box::new),
            Self::Archive(_) => None,
        }
    }
}

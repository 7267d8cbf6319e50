//! The model that a cluster's statements are compared with: every acknowledged row and its fate.

use piperoll_client::Receipt;

/// Fate of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Here,
    Erased,
    Pruned,
    /// The row is no longer in any log, because its node's log was replaced by an older copy.
    Lost,
    /// The row is lost, and the aggregator was restored to a time before it knew of the row.
    LostUnknown,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) node: usize,
    /// Number of the log that contains the row; 0 for the node's first log.
    pub(crate) log: usize,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) micros: i64,
    pub(crate) state: State,
}

/// A time range in microseconds, with an exclusive end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Range {
    pub(crate) fn holds(&self, row: &Row) -> bool {
        (self.from..self.to).contains(&row.micros)
    }
}

/// Completeness that an answer over a range may state for one node or for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Complete,
    Incomplete,
    /// The answer may state either, for example because unacknowledged rows of the range may have been lost.
    Either,
}

impl Expected {
    /// Combines the expectations for two nodes.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Incomplete, _) | (_, Self::Incomplete) => Self::Incomplete,
            (Self::Either, _) | (_, Self::Either) => Self::Either,
            (Self::Complete, Self::Complete) => Self::Complete,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Number of the node's current log.
    pub(crate) log: usize,
    pub(crate) is_up: bool,
    pub(crate) is_retired: bool,
    /// Whether the node is retired and its folder was added to the aggregator's configuration.
    pub(crate) is_kept: bool,
    /// Time at which the node joined; 0 for the nodes that the cluster began with.
    pub(crate) joined: i64,
    /// Start of the time range in which no row was lost or pruned.
    pub(crate) clear_from: i64,
    /// Start of the time range for which the current log has every row.
    pub(crate) present_from: i64,
    /// Whether the key that signed the end of an archived log may have been replaced before a witness saw that end.
    pub(crate) is_unproven: bool,
}

impl Node {
    pub(crate) fn new(joined: i64) -> Self {
        Self {
            log: 0,
            is_up: true,
            is_retired: false,
            is_kept: false,
            joined,
            clear_from: 0,
            present_from: 0,
            is_unproven: false,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) nodes: Vec<Node>,
    pub(crate) rows: Vec<Row>,
}

impl Model {
    pub(crate) fn acknowledged(&mut self, node: usize, receipt: &Receipt) {
        self.rows.push(Row {
            node,
            log: self.nodes[node].log,
            seq: receipt.seq,
            id: receipt.id.to_string(),
            micros: receipt.timestamp.micros(),
            state: State::Here,
        });
    }

    /// Returns the rows of a node's current log.
    pub(crate) fn present(&self, node: usize) -> impl Iterator<Item = &Row> {
        let log = self.nodes[node].log;
        self.rows.iter().filter(move |row| (row.node, row.log) == (node, log))
    }

    /// Returns the timestamp of a node's latest row, or `now` if that is later.
    pub(crate) fn latest(&self, node: usize, now: i64) -> i64 {
        self.rows.iter().filter(|row| row.node == node).map(|row| row.micros).fold(now, i64::max)
    }

    /// Marks the rows that were lost when a node's current log was replaced by an older copy. The copy has the rows below `size`.
    pub(crate) fn lost(&mut self, node: usize, size: u64) {
        let log = self.nodes[node].log;
        for row in &mut self.rows {
            if (row.node, row.log) == (node, log) && row.seq >= size {
                row.state = State::Lost;
            }
        }
    }

    /// Returns the completeness that a tail since `from` may state for a node. Pruned rows are not part of a tail.
    pub(crate) fn expected_of_tail(&self, index: usize, from: i64) -> Expected {
        let node = &self.nodes[index];
        let is_lost = |row: &Row| row.node == index && row.micros >= from && row.state == State::Lost;
        if !node.is_up || self.rows.iter().any(is_lost) {
            Expected::Incomplete
        } else if from < node.clear_from {
            Expected::Either
        } else {
            Expected::Complete
        }
    }

    /// Returns the completeness that an answer over a range may state for a node. A bundle contains only rows that can be proven.
    pub(crate) fn expected(&self, index: usize, range: Range, is_bundle: bool) -> Expected {
        let node = &self.nodes[index];
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.node == index && range.holds(row)).collect();
        let is_gone = |row: &&Row| matches!(row.state, State::Lost | State::Pruned);
        let is_elsewhere = node.is_retired && !node.is_kept && !rows.is_empty();
        if (!node.is_retired && !node.is_up) || is_elsewhere || rows.iter().any(is_gone) {
            // A node that joined after the end of the range need not be reported as missing.
            return if rows.is_empty() && (node.is_retired || node.joined >= range.to) {
                Expected::Either
            } else {
                Expected::Incomplete
            };
        }
        let is_doubted = is_bundle && node.is_unproven;
        let clear_from = if is_doubted { node.clear_from.max(node.present_from) } else { node.clear_from };
        if range.from < clear_from { Expected::Either } else { Expected::Complete }
    }
}

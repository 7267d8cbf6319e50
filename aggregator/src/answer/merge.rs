//! K-way merge: picks the next row of the timeline among the heads of all nodes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;

/// Key of the next row of one source. Sources are sorted by node ID, so comparing indexes gives the same order as
/// comparing IDs, without comparing text for every row.
type MergeKey = (Timestamp, usize, u64);

/// Keys of the next rows, one for each source that has a row ready.
pub(crate) enum Merge {
    Ascending(BinaryHeap<Reverse<MergeKey>>),
    Descending(BinaryHeap<MergeKey>),
}

impl Merge {
    pub(crate) fn new(order: Order) -> Self {
        match order {
            Order::Asc => Self::Ascending(BinaryHeap::new()),
            Order::Desc => Self::Descending(BinaryHeap::new()),
        }
    }

    /// Adds the next row of source `index`. Call this for every source that is not finished before calling `take`; otherwise the
    /// order could be wrong.
    pub(crate) fn offer(&mut self, index: usize, timestamp: Timestamp, seq: u64) {
        match self {
            Self::Ascending(heap) => heap.push(Reverse((timestamp, index, seq))),
            Self::Descending(heap) => heap.push((timestamp, index, seq)),
        }
    }

    /// Removes the first row and returns its source.
    pub(crate) fn take(&mut self) -> Option<usize> {
        match self {
            Self::Ascending(heap) => heap.pop().map(|Reverse((_, index, _))| index),
            Self::Descending(heap) => heap.pop().map(|(_, index, _)| index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::ids::NodeId;
    use piperoll_format::order::Key;
    use proptest::prelude::*;

    proptest! {
        /// Merging sorted sources gives the same order as sorting all rows by their key.
        #[test]
        fn merge_is_a_sort(mut sources in prop::collection::vec(prop::collection::vec((0i64..6, 0u64..6), 0..12), 1..6), asc: bool) {
            let order = if asc { Order::Asc } else { Order::Desc };
            let ids: Vec<NodeId> = (0..sources.len()).map(|n| format!("n{n}").parse().expect("a node id")).collect();
            let key = |index: usize, (time, seq): (i64, u64)| Key {
                timestamp: Timestamp::from_micros(time), node_id: ids[index].clone(), seq,
            };
            let mut expected = Vec::new();
            for (index, rows) in sources.iter_mut().enumerate() {
                rows.sort_unstable();
                rows.dedup();
                if !asc {
                    rows.reverse();
                }
                expected.extend(rows.iter().map(|row| key(index, *row)));
            }
            expected.sort();
            if !asc {
                expected.reverse();
            }
            let mut merge = Merge::new(order);
            let mut at = vec![0; sources.len()];
            for (index, rows) in sources.iter().enumerate() {
                if let Some((time, seq)) = rows.first() {
                    merge.offer(index, Timestamp::from_micros(*time), *seq);
                }
            }
            let mut merged = Vec::new();
            while let Some(index) = merge.take() {
                merged.push(key(index, sources[index][at[index]]));
                at[index] += 1;
                if let Some((time, seq)) = sources[index].get(at[index]) {
                    merge.offer(index, Timestamp::from_micros(*time), *seq);
                }
            }
            prop_assert_eq!(merged, expected);
        }
    }
}

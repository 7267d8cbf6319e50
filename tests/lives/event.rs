//! Events that can happen to a cluster, and their seeded choice.

use piperoll_tests::Rng;

/// Maximum number of nodes in a life.
pub(crate) const NODES_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Append(usize),
    /// Appends more rows than the unit of pruning.
    Batch(usize),
    /// Stops the node until the next event.
    Stop(usize),
    Kill(usize),
    Prune(usize),
    Hold(usize),
    Erase(usize),
    RotateMac(usize),
    RotateKey(usize),
    NewGeneration(usize),
    Backup(usize),
    /// Restores the backup. If the flag is set, a new generation begins; otherwise the log is accepted as it is, unless its key
    /// was replaced.
    Restore(usize, bool),
    /// Retires the node. The flag is set if the node's folder is added to the configurations of the aggregators.
    Retire(usize, bool),
    AddNode,
    /// Adds a second aggregator, which is queried as well from then on.
    AddAggregator,
    Renew(usize),
    /// Revokes the node's certificates. They are renewed after the statements have been checked.
    Revoke(usize),
    /// Restarts the node with a clock that is wrong by this many seconds.
    Clock(usize, i64),
    /// Deletes the aggregator's state of a node, or empties it if the flag is set.
    Forget(usize, bool),
    RestartAggregator,
    BackupAggregator,
    RestoreAggregator,
}

/// Chooses one event. Some events have no effect in the current state of the cluster.
pub(crate) fn choose(rng: &mut Rng, nodes: usize) -> Event {
    let node = rng.below(nodes);
    match rng.below(28) {
        0 | 1 => Event::Append(node),
        2 | 3 => Event::Batch(node),
        4 => Event::Stop(node),
        5 => Event::Kill(node),
        6 | 7 => Event::Prune(node),
        8 => Event::Hold(node),
        9 | 10 => Event::Erase(node),
        11 => Event::RotateMac(node),
        12 => Event::RotateKey(node),
        13 | 14 => Event::NewGeneration(node),
        15 => Event::Backup(node),
        16 | 17 => Event::Restore(node, rng.coin()),
        18 => Event::Retire(node, rng.coin()),
        19 => Event::AddNode,
        20 => Event::Renew(node),
        21 => Event::Clock(node, *rng.pick(&[3_600, -3_600, 40, -40])),
        22 => Event::Forget(node, rng.coin()),
        23 => Event::RestartAggregator,
        24 => Event::BackupAggregator,
        25 => Event::Revoke(node),
        26 => Event::AddAggregator,
        _ => Event::RestoreAggregator,
    }
}

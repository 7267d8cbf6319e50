//! Kinds of faults, and the seeded choice of the faults of a round.

use piperoll_tests::Rng;

pub(crate) const NODES: usize = 3;
/// The node whose log begins with rows old enough to prune.
pub(crate) const AGED: usize = 2;

/// A daemon of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Node(usize),
    Aggregator,
}

/// Network faults between the aggregator and a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Refused,
    Silent,
    Trickle,
    Cut(usize),
    Garbage,
    DelayMillis(u64),
    Corrupt,
}

/// Faults injected into a node's system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Full,
    Broken,
    SyncFails,
    Slow,
}

/// Damage to one file of a stopped daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    Flip,
    Halve,
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Target),
    Freeze(Target),
    Restart(Target),
    Network(usize, Network),
    Disk(usize, Disk),
    /// Sets a node's clock ahead or back by this many seconds.
    Clock(usize, i64),
    Prune,
    Erase(usize),
    RotateMac(usize),
    RotateKey(usize),
    /// Begins a new generation. If the flag is set, the node also gets new keys, as after a break-in.
    NewGeneration(usize, bool),
    Renew(Target),
    Damage(Target, Edit),
}

impl Fault {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Freeze(_) => "freeze",
            Self::Restart(_) => "restart",
            Self::Network(..) => "network",
            Self::Disk(..) => "disk",
            Self::Clock(..) => "clock",
            Self::Prune => "prune",
            Self::Erase(_) => "erase",
            Self::RotateMac(_) => "rotate-mac",
            Self::RotateKey(_) => "rotate-key",
            Self::NewGeneration(..) => "new-generation",
            Self::Renew(_) => "renew",
            Self::Damage(_, Edit::Flip) => "bit-flip",
            Self::Damage(..) => "truncation",
        }
    }

    /// Returns the daemon that the fault disturbs.
    pub(crate) fn target(self) -> Target {
        match self {
            Self::Kill(target) | Self::Freeze(target) | Self::Restart(target) | Self::Renew(target) => target,
            Self::Damage(target, _) => target,
            Self::Prune => Target::Node(AGED),
            Self::Network(node, _) | Self::Disk(node, _) | Self::Clock(node, _) => Target::Node(node),
            Self::Erase(node) | Self::RotateMac(node) | Self::RotateKey(node) => Target::Node(node),
            Self::NewGeneration(node, _) => Target::Node(node),
        }
    }

    /// Returns whether the fault is an operator's command, which works only while the node and the aggregator run.
    fn is_order(self) -> bool {
        matches!(
            self,
            Self::Prune
                | Self::Erase(_)
                | Self::RotateMac(_)
                | Self::RotateKey(_)
                | Self::NewGeneration(..)
                | Self::Renew(_)
        )
    }

    /// Returns whether requests to the aggregator may fail during the fault.
    pub(crate) fn disturbs_the_aggregator(self) -> bool {
        let restarts = matches!(self, Self::RotateMac(_) | Self::RotateKey(_) | Self::NewGeneration(..));
        restarts || matches!(self, Self::Damage(..)) || self.target() == Target::Aggregator
    }

    fn goes_with(self, other: Self) -> bool {
        let is_damage = |fault| matches!(fault, Self::Damage(..));
        let is_network = |fault| matches!(fault, Self::Network(..));
        let share = self.target() == other.target();
        let both_orders = self.is_order() && other.is_order();
        let order_without_aggregator = (self.is_order() && other.target() == Target::Aggregator)
            || (other.is_order() && self.target() == Target::Aggregator);
        let network_beside = (is_network(self) ^ is_network(other)) && !self.is_order() && !other.is_order();
        !is_damage(self)
            && !is_damage(other)
            && !both_orders
            && !order_without_aggregator
            && self.kind() != other.kind()
            && (!share || network_beside)
    }
}

fn target(rng: &mut Rng) -> Target {
    match rng.below(NODES + 1) {
        NODES => Target::Aggregator,
        node => Target::Node(node),
    }
}

/// Kinds of the first faults in a cycle of rounds, one for each round. Kinds with many variants are listed more than once.
const DECK: [&str; 18] = [
    "kill",
    "freeze",
    "restart",
    "network",
    "network",
    "disk",
    "clock",
    "prune",
    "erase",
    "rotate-mac",
    "rotate-key",
    "new-generation",
    "renew",
    "bit-flip",
    "bit-flip",
    "bit-flip",
    "bit-flip",
    "truncation",
];

fn one(kind: &str, rng: &mut Rng) -> Fault {
    let node = rng.below(NODES);
    match kind {
        "kill" => Fault::Kill(target(rng)),
        "freeze" => Fault::Freeze(target(rng)),
        "restart" => Fault::Restart(if rng.coin() { Target::Aggregator } else { Target::Node(node) }),
        "network" => Fault::Network(node, network(rng)),
        "disk" => Fault::Disk(node, *rng.pick(&[Disk::Full, Disk::Broken, Disk::SyncFails, Disk::Slow])),
        "clock" => {
            let forward = 2 + rng.below(120) as i64;
            let back = -2 - rng.below(7_200) as i64;
            Fault::Clock(node, if rng.coin() { forward } else { back })
        }
        "prune" => Fault::Prune,
        "erase" => Fault::Erase(node),
        "rotate-mac" => Fault::RotateMac(node),
        "rotate-key" => Fault::RotateKey(node),
        "new-generation" => Fault::NewGeneration(node, rng.coin()),
        "renew" => Fault::Renew(target(rng)),
        "bit-flip" => Fault::Damage(target(rng), Edit::Flip),
        _ => Fault::Damage(target(rng), *rng.pick(&[Edit::Halve, Edit::Empty])),
    }
}

fn network(rng: &mut Rng) -> Network {
    match rng.below(8) {
        0 => Network::Refused,
        1 => Network::Silent,
        2 => Network::Trickle,
        3 => Network::Cut(rng.below(60_000)),
        4 => Network::Garbage,
        5 => Network::DelayMillis(50 + rng.below(1_000) as u64),
        _ => Network::Corrupt,
    }
}

/// Chooses one fault for a round, or two that can overlap. The kind of the first fault comes from `DECK`, which is reshuffled for
/// every cycle of rounds, so that even a short run has nearly every kind.
pub(crate) fn choose(seed: u64, round: usize) -> Vec<Fault> {
    let (deal, card) = (round / DECK.len(), round % DECK.len());
    let mut shuffling = Rng::new(seed ^ (deal as u64) << 32);
    let mut deck = DECK;
    for place in (1..deck.len()).rev() {
        deck.swap(place, shuffling.below(place + 1));
    }
    let mut rng = generator(seed, round);
    let first = one(deck[card], &mut rng);
    let mut chosen = vec![first];
    if rng.below(5) < 3 {
        // Some faults, such as damage, cannot overlap with any other fault; such a fault remains the only one of its round.
        let mut tries = (0..8).map(|_| one(DECK[rng.below(DECK.len())], &mut rng));
        chosen.extend(tries.find(|second| first.goes_with(*second)));
    }
    chosen
}

/// Returns the random number generator of one round. Its numbers do not depend on how many numbers earlier rounds drew.
pub(crate) fn generator(seed: u64, round: usize) -> Rng {
    Rng::new(Rng::new(seed).number() ^ Rng::new(round as u64).number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_faults_and_a_deck_has_every_kind() {
        for seed in 0..50 {
            let mut kinds = std::collections::BTreeSet::new();
            for round in 0..DECK.len() {
                let chosen = choose(seed, round);
                assert_eq!(chosen, choose(seed, round));
                kinds.extend(chosen.iter().map(|fault| fault.kind()));
            }
            assert!(DECK.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
        }
        assert_ne!(choose(1, 0), choose(2, 0));
    }

    #[test]
    fn pairs_can_happen_together() {
        let rounds = (0..500).map(|round| choose(7, round));
        let pairs: Vec<_> = rounds.filter(|chosen| chosen.len() == 2).collect();
        assert!(pairs.len() > 100, "{}", pairs.len());
        assert!(pairs.iter().all(|pair| pair[0].goes_with(pair[1]) && pair[1].goes_with(pair[0])), "{pairs:?}");
    }
}

//! Hashing leaves beside the writer: of the work that a row makes, only this needs nothing but its own bytes, so another
//! processor does it while the writer goes on inserting.

use std::sync::mpsc::{Receiver, Sender, channel};

use piperoll_shared::log::limits::MAC_BYTES;
use piperoll_shared::log::tree::{Hash, leaf_hash};

/// Rows handed over together; fewer are hashed on the spot.
const ROWS_PER_HANDOVER: usize = 24;

type Rows = Vec<(String, [u8; MAC_BYTES])>;

/// The leaves of one transaction's rows, in their order. Owned by the writer.
pub(super) struct LeafHasher {
    waiting: Rows,
    /// Hand-overs whose leaves have not come back yet.
    out: usize,
    pushed: usize,
    thread: Option<(Sender<Rows>, Receiver<Vec<Hash>>)>,
}

impl LeafHasher {
    /// Starts the thread; without one, everything is hashed on the spot. It ends when this is dropped.
    pub(super) fn new() -> Self {
        let (rows, to_hash) = channel::<Rows>();
        let (hashed, leaves) = channel();
        let work = move || {
            while let Ok(rows) = to_hash.recv() {
                if hashed.send(hash(&rows)).is_err() {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("leaves".to_owned()).spawn(work);
        Self { waiting: Vec::new(), out: 0, pushed: 0, thread: spawned.ok().map(|_| (rows, leaves)) }
    }

    /// The next row of the transaction.
    pub(super) fn push(&mut self, body: String, mac: [u8; MAC_BYTES]) {
        self.pushed += 1;
        self.waiting.push((body, mac));
        if self.waiting.len() == ROWS_PER_HANDOVER
            && let Some((rows, _)) = &self.thread
        {
            match rows.send(std::mem::take(&mut self.waiting)) {
                Ok(()) => self.out += 1,
                // Its thread is gone; the rows come back and are hashed here, as all that follow.
                Err(back) => self.waiting = back.0,
            }
        }
    }

    /// All leaves since the last call, in the order of the rows. `None` when some did not come back: a tree without them
    /// would be another tree.
    pub(super) fn take(&mut self) -> Option<Vec<Hash>> {
        let rest = hash(&std::mem::take(&mut self.waiting));
        let mut leaves = Vec::new();
        while self.out > 0 {
            self.out -= 1;
            let Some(hashed) = self.thread.as_ref().and_then(|(_, leaves)| leaves.recv().ok()) else { break };
            leaves.extend(hashed);
        }
        leaves.extend(rest);
        let pushed = std::mem::take(&mut self.pushed);
        (leaves.len() == pushed).then_some(leaves)
    }

    /// Forgets the rows of a transaction that came to nothing.
    pub(super) fn clear(&mut self) {
        let _ = self.take();
    }
}

fn hash(rows: &[(String, [u8; MAC_BYTES])]) -> Vec<Hash> {
    rows.iter().map(|(body, mac)| leaf_hash(body.as_bytes(), mac)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_in_the_order_of_their_rows() {
        let mut hasher = LeafHasher::new();
        for count in [0, 1, 23, 24, 25, 200] {
            let rows: Rows = (0..count).map(|n| (format!("{count} {n}"), [7; MAC_BYTES])).collect();
            rows.iter().cloned().for_each(|(body, mac)| hasher.push(body, mac));
            assert_eq!(hasher.take(), Some(hash(&rows)));
            rows.iter().cloned().for_each(|(body, mac)| hasher.push(body, mac));
            hasher.clear();
        }
    }
}

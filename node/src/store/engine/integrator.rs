//! Integrates rows into the Merkle tree on a separate thread. Hashing is the most expensive part of appending an entry and
//! needs only the row's own bytes, so this thread can hash while the writer inserts the next rows and waits for the disk.
//!
//! The writer waits for hashes only when its transaction needs them, which is when a tile becomes full.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use piperoll_format::limits::MAC_BYTES;
use piperoll_format::merkle::{FullTile, Hash, TILE_WIDTH, TreeBuilder, leaf_hash};

/// Number of rows that are sent to the thread together: small enough that the thread never lags far behind, and large enough
/// that it is seldom woken.
const ROWS_PER_HANDOVER: usize = 128;
/// Maximum bytes of bodies that are sent together, so that a buffer of long bodies stays small as well.
const HANDOVER_BYTES: usize = 256 * 1_024;
/// Minimum number of rows to send at the end of a transaction. Fewer rows wait for the next transaction, because waking the
/// thread costs more than hashing them.
const ROWS_WORTH_WAKING: usize = 32;
/// Number of used buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 4;

/// Bodies and MACs, one after another in one buffer. With one allocation per row, which one thread makes and the other frees,
/// both threads would contend for the allocator.
#[derive(Default)]
struct RowBuffer {
    bytes: Vec<u8>,
    macs: Vec<(usize, [u8; MAC_BYTES])>,
}

impl RowBuffer {
    fn push(&mut self, body: &str, mac: [u8; MAC_BYTES]) {
        self.bytes.extend_from_slice(body.as_bytes());
        self.macs.push((self.bytes.len(), mac));
    }

    fn is_full(&self) -> bool {
        self.macs.len() >= ROWS_PER_HANDOVER || self.bytes.len() >= HANDOVER_BYTES
    }

    /// Keeps only the first `rows` rows.
    fn truncate(&mut self, rows: usize) {
        self.macs.truncate(rows);
        self.bytes.truncate(self.macs.last().map_or(0, |(end, _)| *end));
    }

    fn leaves(&self) -> impl Iterator<Item = Hash> {
        let mut from = 0;
        self.macs.iter().map(move |(to, mac)| leaf_hash(&self.bytes[std::mem::replace(&mut from, *to)..*to], mac))
    }
}

/// The tree thread has ended. Nothing more can be appended or signed until a restart rebuilds the tree from the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree integrator thread has stopped; restart the node")]
pub struct IntegratorStopped;

enum Command {
    /// Rolls the tree back to this many rows, because the rows after them were not committed.
    Back(u64),
    /// The next rows. Rows after the first `begun` rows of the log belong to a transaction that may still fail.
    Rows { rows: RowBuffer, begun: u64 },
    /// Requests the root over this many rows: either all rows, including those of the newest transaction, or only the rows
    /// before that transaction.
    Root(u64, Sender<Hash>),
}

/// Handle of the tree thread, owned by the writer.
pub(in crate::store) struct TreeIntegrator {
    orders: Sender<Command>,
    filled: Receiver<Vec<FullTile>>,
    /// Used buffers that can be filled again.
    spare: Receiver<RowBuffer>,
    /// Rows that were pushed but not yet sent to the thread. They may include committed rows, because [`Self::full_tiles`] does not
    /// send fewer than `ROWS_WORTH_WAKING` rows.
    waiting: RowBuffer,
    /// Number of rows pushed so far, including those of the open transaction.
    size: u64,
    /// Number of rows before the open transaction.
    begun: u64,
    /// Number of full tiles of the lowest level that the thread has not returned yet.
    due: usize,
    /// If set, rows are not added to the tree. Only for benchmarks, because such a log cannot be signed.
    #[cfg(feature = "without-tree")]
    pub(in crate::store) off: bool,
}

impl TreeIntegrator {
    /// Starts the thread, which ends when this handle is dropped.
    pub(in crate::store) fn start(tree: TreeBuilder) -> std::io::Result<Self> {
        let (orders, received) = channel();
        let (tiles, filled) = channel();
        let (used, spare) = sync_channel(SPARE_BUFFERS_MAX);
        let size = tree.size();
        let growing = Integration { base: tree.clone(), tree };
        std::thread::Builder::new().name("tree".to_owned()).spawn(move || growing.run(&received, &tiles, &used))?;
        Ok(Self {
            orders,
            filled,
            spare,
            waiting: RowBuffer::default(),
            size,
            begun: size,
            due: 0,
            #[cfg(feature = "without-tree")]
            off: false,
        })
    }

    /// Begins a transaction after the first `size` rows. Rows left over from an earlier transaction that failed are discarded.
    pub(in crate::store) fn begin(&mut self, size: u64) -> Result<(), IntegratorStopped> {
        let failed = size < self.size;
        let handed_over = self.size - self.waiting.macs.len() as u64;
        (self.size, self.begun) = (size, size);
        #[cfg(feature = "without-tree")]
        if self.off {
            return Ok(());
        }
        self.due_tiles()?;
        if !failed {
            return Ok(());
        }
        self.waiting.truncate(usize::try_from(size.saturating_sub(handed_over)).unwrap_or(usize::MAX));
        if handed_over > size { self.orders.send(Command::Back(size)).map_err(|_| IntegratorStopped) } else { Ok(()) }
    }

    /// Adds the next row of the transaction.
    pub(in crate::store) fn push(&mut self, body: &str, mac: [u8; MAC_BYTES]) -> Result<(), IntegratorStopped> {
        #[cfg(feature = "without-tree")]
        if self.off {
            return Ok(());
        }
        self.waiting.push(body, mac);
        self.size += 1;
        let full = self.size.is_multiple_of(TILE_WIDTH);
        if full {
            self.due += 1;
        }
        if full || self.waiting.is_full() { self.hand_over() } else { Ok(()) }
    }

    /// Returns every tile that the transaction's rows filled. The rows after the last full tile are hashed during the commit
    /// or, if there are only a few of them, later.
    pub(in crate::store) fn full_tiles(&mut self) -> Result<Vec<FullTile>, IntegratorStopped> {
        if self.waiting.macs.len() >= ROWS_WORTH_WAKING {
            self.hand_over()?;
        }
        self.due_tiles()
    }

    /// Returns the root over the first `size` rows: all rows including those of the last transaction, or only the rows before
    /// that transaction if it failed.
    pub(in crate::store) fn root(&mut self, size: u64) -> Result<Hash, IntegratorStopped> {
        self.hand_over()?;
        let (reply, root) = channel();
        self.orders.send(Command::Root(size, reply)).map_err(|_| IntegratorStopped)?;
        root.recv().map_err(|_| IntegratorStopped)
    }

    fn hand_over(&mut self) -> Result<(), IntegratorStopped> {
        if self.waiting.macs.is_empty() {
            return Ok(());
        }
        let next = self.spare.try_recv().unwrap_or_default();
        let rows = std::mem::replace(&mut self.waiting, next);
        self.orders.send(Command::Rows { rows, begun: self.begun }).map_err(|_| IntegratorStopped)
    }

    fn due_tiles(&mut self) -> Result<Vec<FullTile>, IntegratorStopped> {
        let mut tiles = Vec::new();
        while self.due > 0 {
            tiles.extend(self.filled.recv().map_err(|_| IntegratorStopped)?);
            self.due -= 1;
        }
        Ok(tiles)
    }
}

/// State owned by the thread.
struct Integration {
    tree: TreeBuilder,
    /// The tree at the beginning of the newest transaction that has rows.
    base: TreeBuilder,
}

impl Integration {
    /// Runs until the writer is dropped, or until a command names a number of rows for which the thread has no tree, so that no
    /// root over the wrong rows is ever signed.
    fn run(mut self, orders: &Receiver<Command>, tiles: &Sender<Vec<FullTile>>, used: &SyncSender<RowBuffer>) {
        while let Ok(order) = orders.recv() {
            match order {
                Command::Back(size) if self.base.size() == size => self.tree = self.base.clone(),
                Command::Back(_) => return,
                Command::Rows { mut rows, begun } => {
                    for leaf in rows.leaves() {
                        if self.tree.size() == begun {
                            self.base = self.tree.clone();
                        }
                        let mut full = Vec::new();
                        self.tree.push(leaf, |tile| full.push(tile));
                        if !full.is_empty() && tiles.send(full).is_err() {
                            return;
                        }
                    }
                    rows.truncate(0);
                    let _ = used.try_send(rows);
                }
                Command::Root(size, reply) => {
                    let Some(tree) = self.at(size) else { return };
                    // The caller may have stopped waiting.
                    let _ = reply.send(tree.root());
                }
            }
        }
    }

    fn at(&self, size: u64) -> Option<&TreeBuilder> {
        [&self.tree, &self.base].into_iter().find(|tree| tree.size() == size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64) -> (String, [u8; MAC_BYTES]) {
        (format!("row {n}"), [7; MAC_BYTES])
    }

    #[test]
    fn grows_the_same_tree_and_forgets_what_came_to_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let mut plain = TreeBuilder::default();
        let mut grower = TreeIntegrator::start(TreeBuilder::default())?;
        for count in [0, 1, 31, 32, 33, 158, 1, 255, 256, 257, 1_000] {
            let size = plain.size();
            for fails in [true, false] {
                grower.begin(size)?;
                for n in size..size + count {
                    let (body, mac) = row(if fails { n + 1 } else { n });
                    grower.push(&body, mac)?;
                }
                // A transaction may fail before or after its tiles have been taken.
                if fails && count % 2 == 0 {
                    continue;
                }
                let tiles = grower.full_tiles()?;
                if fails {
                    assert_eq!(grower.root(size), Ok(plain.root()));
                    continue;
                }
                let mut expected = Vec::new();
                for n in size..size + count {
                    let (body, mac) = row(n);
                    plain.push(leaf_hash(body.as_bytes(), &mac), |tile| expected.push(tile));
                }
                assert_eq!(tiles, expected);
            }
            assert_eq!(grower.root(plain.size()), Ok(plain.root()));
        }
        assert_eq!(grower.root(plain.size() + 1), Err(IntegratorStopped), "no root of rows that are not there");
        Ok(())
    }
}

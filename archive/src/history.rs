//! The chain of steps: which rows the archive has, and whether it is still the archive that was written.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::merkle::{CompactRange, Hash, TILE_WIDTH, encode_hash, perfect_root};
use piperoll_format::note::{Note, VerifyingKey};
use piperoll_format::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::names::{self, ARCHIVE, STEPS};
use crate::record::{
    ABOUT_BYTES_MAX, About, ArchiveStart, Digest, LogTree, RecordError, STEP_BYTES_MAX, Step, TREE_BYTES_MAX, Trees,
    digest_of,
};
use crate::row::LogId;
use crate::store::{Store, StoreError};

/// Maximum number of steps that are read at the same time.
const STEPS_AT_ONCE: usize = 16;
/// Levels of tiles above level 0, for a log of 2^64 rows.
const UPPER_LEVELS_MAX: u32 = 7;

/// The newest step; number 0 and the digest of the object `archive` before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub number: u64,
    pub digest: Digest,
}

/// Archived rows of one log, and the hashes from which the next step continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// First row of the newest contiguous range. Rows below it were never archived, or belong to an earlier range.
    pub first_seq: u64,
    /// Compact range of all rows below the end of the range. Its size is the number of rows.
    pub after: CompactRange,
    /// Newest time of any archived row.
    pub newest: Timestamp,
    /// Hashes of the unfinished tiles above level 0, lowest level first.
    upper: Vec<UpperEdge>,
}

/// Hashes of the last tile of one level that is not full yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct UpperEdge {
    /// Index of the first of `hashes` within its level.
    first: u64,
    hashes: Vec<Hash>,
}

/// A full tile above level 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperTile {
    pub level: u32,
    pub index: u64,
    pub hashes: Vec<Hash>,
}

/// The archive as its steps describe it.
#[derive(Debug, Clone)]
pub struct History {
    pub about: About,
    pub head: Head,
    pub logs: BTreeMap<LogId, LogState>,
}

/// Reasons why the chain of steps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("there is no archive at {0}; create it with `piperoll archive init`")]
    NoArchive(String),
    #[error("the archive at {store} is {found}, but this is {expected}")]
    Another { store: String, found: String, expected: String },
    #[error("{0} is missing, but a later step exists")]
    Gap(String),
    #[error("{name} does not follow the step before it: it names another digest")]
    Chain { name: String },
    #[error("{name} does not match the digest in its step")]
    Tree { name: String },
    #[error("{name}: {reason}")]
    Log { name: String, reason: String },
}

impl History {
    /// Reads all steps, and passes each of them to `each`.
    ///
    /// # Errors
    /// Fails if a step is missing, was changed, or does not continue the steps before it.
    pub async fn load(
        store: &Store,
        key: &VerifyingKey,
        cluster: &ClusterName,
        archive: &NodeId,
        mut each: impl FnMut(&Step, Head),
    ) -> Result<Self, HistoryError> {
        let bytes = match store.read(ARCHIVE, ABOUT_BYTES_MAX as u64).await {
            Err(error) if error.is_missing() => return Err(HistoryError::NoArchive(store.shown().to_owned())),
            bytes => bytes?,
        };
        let about = About::read(&bytes, key)?;
        if (&about.cluster, &about.archive) != (cluster, archive) {
            return Err(HistoryError::Another {
                store: store.shown().to_owned(),
                found: format!("{} of cluster {}", about.archive, about.cluster),
                expected: format!("{archive} of cluster {cluster}"),
            });
        }
        let head = Head { number: 0, digest: digest_of(&bytes) };
        let mut history = Self { about, head, logs: BTreeMap::new() };
        history.advance(store, key, &mut each).await?;
        Ok(history)
    }

    /// Reads the steps after the newest known one, and passes each of them to `each`. Earlier steps are not read again, but the
    /// newest known one must be unchanged.
    ///
    /// # Errors
    /// As for [`History::load`].
    pub async fn advance(
        &mut self,
        store: &Store,
        key: &VerifyingKey,
        mut each: impl FnMut(&Step, Head),
    ) -> Result<(), HistoryError> {
        let mut numbers: Vec<u64> = Vec::new();
        for listed in store.list(STEPS).await? {
            numbers.extend(names::number_in(STEPS, &listed.name));
        }
        // Names sort like numbers only up to eight digits.
        numbers.sort_unstable();
        if let Some(gap) = (1..).zip(&numbers).find(|(expected, found)| expected != *found) {
            return Err(missing(store, gap.0).await);
        }
        if self.head.number > 0 {
            let name = names::step(self.head.number);
            let bytes = match store.read(&name, STEP_BYTES_MAX as u64).await {
                Err(error) if error.is_missing() => return Err(HistoryError::Gap(name)),
                bytes => bytes?,
            };
            if digest_of(&bytes) != self.head.digest {
                // Only another step that the writer signed is a fork; other bytes may have been damaged on their way.
                Step::check_signature(self.head.number, &bytes, key)?;
                return Err(HistoryError::Chain { name });
            }
        }
        let known = self.head.number;
        let new = numbers.into_iter().filter(|number| *number > known);
        let mut steps = stream::iter(new).map(|number| read_step(store, key, number)).buffered(STEPS_AT_ONCE);
        while let Some((step, digest, trees)) = steps.try_next().await? {
            self.add(&step, digest, &trees)?;
            each(&step, self.head);
        }
        Ok(())
    }

    /// Adds the step after the newest one.
    ///
    /// # Errors
    /// Fails if the step does not continue the history.
    pub fn add(&mut self, step: &Step, digest: Digest, trees: &Trees) -> Result<Vec<(LogId, UpperTile)>, HistoryError> {
        let name = names::step(step.number);
        if step.previous != self.head.digest || Some(step.number) != self.head.number.checked_add(1) {
            return Err(HistoryError::Chain { name });
        }
        let of = |reason: String| HistoryError::Log { name: name.clone(), reason };
        if trees.logs.len() != step.logs.len() + step.starts.len() {
            return Err(of("its hashes are those of other logs".to_owned()));
        }
        for (start, tree) in step.starts.iter().zip(&trees.logs) {
            self.start_at(start, tree).map_err(&of)?;
        }
        let mut tiles = Vec::new();
        for (range, tree) in step.logs.iter().zip(&trees.logs) {
            if (&range.log, range.from_seq, range.to_seq) != (&tree.log, tree.from_seq, tree.to_seq) {
                return Err(of(format!("its hashes are not those of the rows of {}", range.log)));
            }
            let origin = range.log.origin(self.about.cluster.as_str());
            let checkpoint = checkpoint_of(&range.checkpoint, &origin).map_err(&of)?;
            let known = self.logs.get(&range.log);
            let state = LogState::after(known, tree, &checkpoint, range.newest).map_err(&of)?;
            let (state, full) = state;
            tiles.extend(full.into_iter().map(|tile| (range.log.clone(), tile)));
            self.logs.insert(range.log.clone(), state);
        }
        self.head = Head { number: step.number, digest };
        Ok(tiles)
    }
}

impl History {
    /// Notes that the rows of a log below `start` were removed.
    fn start_at(&mut self, start: &ArchiveStart, tree: &LogTree) -> Result<(), String> {
        let at = (&start.log, start.first_seq, start.first_seq);
        let is_known = tree.before().is_some() && tree.before() == tree.after();
        if (&tree.log, tree.from_seq, tree.to_seq) != at || !is_known || !tree.tiles.is_empty() {
            return Err(format!("its hashes are not those before row {} of {}", start.first_seq, start.log));
        }
        let known = self.logs.get_mut(&start.log).filter(|known| start.first_seq <= known.after.size());
        let known =
            known.ok_or_else(|| format!("the archive does not have row {} of {}", start.first_seq, start.log))?;
        known.first_seq = known.first_seq.max(start.first_seq);
        Ok(())
    }
}

/// Reads a checkpoint's text. Its signatures are checked elsewhere.
pub(crate) fn checkpoint_of(note: &str, origin: &str) -> Result<Checkpoint, String> {
    let note = Note::parse(note).map_err(|error| format!("a checkpoint is not a note: {error}"))?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    if checkpoint.origin != origin {
        return Err(format!("a checkpoint of {} stands for {origin}", checkpoint.origin));
    }
    Ok(checkpoint)
}

/// Error about a step that the store did not list. The list may be wrong, so the step itself decides.
pub(crate) async fn missing(store: &Store, number: u64) -> HistoryError {
    let name = names::step(number);
    match store.read(&name, STEP_BYTES_MAX as u64).await {
        Err(error) if error.is_missing() => HistoryError::Gap(name),
        Err(error) => error.into(),
        Ok(_) => store.wrong_list(STEPS, format!("it lacks {name}, which exists")).into(),
    }
}

async fn read_step(store: &Store, key: &VerifyingKey, number: u64) -> Result<(Step, Digest, Trees), HistoryError> {
    let name = names::step(number);
    let bytes = match store.read(&name, STEP_BYTES_MAX as u64).await {
        // Deleted since it was listed, or hidden by a delete marker.
        Err(error) if error.is_missing() => return Err(HistoryError::Gap(name)),
        bytes => bytes?,
    };
    let step = Step::read(number, &bytes, key)?;
    let tree = store.read(&step.tree.name, step.tree.bytes.min(TREE_BYTES_MAX)).await?;
    if digest_of(&tree) != step.tree.sha256 || tree.len() as u64 != step.tree.bytes {
        return Err(HistoryError::Tree { name: step.tree.name });
    }
    let trees = Trees::read(&step.tree.name, &tree)?;
    Ok((step, digest_of(&bytes), trees))
}

impl LogState {
    /// Returns the state after the rows of `tree`, and the tiles above level 0 that became full.
    pub(crate) fn after(
        known: Option<&Self>,
        tree: &LogTree,
        checkpoint: &Checkpoint,
        newest: Timestamp,
    ) -> Result<(Self, Vec<UpperTile>), String> {
        let log = &tree.log;
        let numbers = || format!("the hashes of {log} have the wrong number");
        let (before, after) = tree.before().zip(tree.after()).ok_or_else(numbers)?;
        if tree.from_seq >= tree.to_seq || tree.to_seq > checkpoint.size {
            return Err(format!("rows {}..{} of {log} are not below its checkpoint", tree.from_seq, tree.to_seq));
        }
        let root = after.root_of(checkpoint.size, &tree.rest).ok_or_else(numbers)?;
        if root != checkpoint.root {
            let (found, signed) = (encode_hash(&root), encode_hash(&checkpoint.root));
            return Err(format!("the rows of {log} lead to the root {found}, but its checkpoint has {signed}"));
        }
        let continued = known.filter(|known| known.after.size() == tree.from_seq);
        if continued.is_some_and(|known| known.after != before) {
            return Err(format!("the rows before {} of {log} are not those that were archived", tree.from_seq));
        }
        if known.is_some_and(|known| known.after.size() > tree.from_seq) {
            return Err(format!("rows of {log} from {} on are archived already", tree.from_seq));
        }
        let expected_tiles = tree.to_seq / TILE_WIDTH - tree.first_tile();
        if tree.tiles.len() as u64 != expected_tiles {
            return Err(numbers());
        }
        let mut of_tiles = before.full_tiles();
        tree.tiles.iter().for_each(|root| of_tiles.push_tile(*root));
        if of_tiles != after.full_tiles() {
            return Err(format!("the tiles of {log} are not those of its rows"));
        }
        let first_tile = tree.from_seq.div_ceil(TILE_WIDTH);
        let mut state = Self {
            first_seq: continued.map_or(tree.from_seq, |known| known.first_seq),
            after,
            newest: known.map_or(newest, |known| known.newest.max(newest)),
            upper: continued
                .map_or_else(|| vec![UpperEdge { first: first_tile, hashes: Vec::new() }], |known| known.upper.clone()),
        };
        // A range that begins within a tile does not have all of that tile's rows, unless it continues a known one.
        let skipped = usize::from(continued.is_none() && !tree.from_seq.is_multiple_of(TILE_WIDTH));
        let mut full = Vec::new();
        for root in tree.tiles.iter().skip(skipped) {
            state.push_tile(*root, &mut full);
        }
        Ok((state, full))
    }

    /// Adds the root of the next level-0 tile to level 1, and further up.
    fn push_tile(&mut self, root: Hash, full: &mut Vec<UpperTile>) {
        let mut hash = root;
        for level in 1..=UPPER_LEVELS_MAX {
            let at = level as usize - 1;
            if self.upper.len() == at {
                // The first tile of a level whose hashes are all known.
                let below = &self.upper[at - 1];
                let index = (below.first / TILE_WIDTH).saturating_sub(1);
                self.upper.push(UpperEdge { first: index, hashes: Vec::new() });
            }
            let edge = &mut self.upper[at];
            edge.hashes.push(hash);
            let end = edge.first + edge.hashes.len() as u64;
            if !end.is_multiple_of(TILE_WIDTH) {
                return;
            }
            let is_whole = edge.hashes.len() as u64 == TILE_WIDTH;
            let hashes = std::mem::take(&mut edge.hashes);
            edge.first = end;
            if !is_whole {
                // Its first hashes belong to rows that the archive does not have.
                return;
            }
            hash = perfect_root(&hashes);
            full.push(UpperTile { level, index: end / TILE_WIDTH - 1, hashes });
        }
    }
}

//! Hashes of a log's tree over its archived rows, for proofs that other programs verify.

use std::collections::HashMap;
use std::ops::Range;

use piperoll_format::merkle::{
    Cover, HASH_BYTES, Hash, TILE_LEVELS, TILE_WIDTH, TileSource, TreeReader, cover_hashes, perfect_root,
};

use super::catalog::CatalogRange;
use super::error::ReadError;
use super::rows::Reader;
use crate::record::names;
use crate::row::LogId;

/// Size of a full tile.
const TILE_BYTES: u64 = TILE_WIDTH * HASH_BYTES as u64;

/// A level and an index of a tile.
type TileAt = (u32, u64);

/// Tiles that were read so far. A reader that needs another one is told which.
struct KnownTiles<'a>(&'a HashMap<TileAt, Vec<Hash>>);

impl TileSource for KnownTiles<'_> {
    type Error = TileAt;

    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, TileAt> {
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        let known = self.0.get(&(level, index)).and_then(|hashes| hashes.get(..width));
        known.map(<[Hash]>::to_vec).ok_or((level, index))
    }
}

/// Maximum number of level-0 tiles that are read together: their rows are in memory meanwhile.
const TILES_AT_ONCE: usize = 32;

impl Reader {
    /// For each of `gaps`, which ascend, the hashes of the widest perfect subtrees that cover its archived rows, from left to right
    /// (docs/format.md, "Range proof").
    ///
    /// Tiles are not signed, so a proof made of these hashes has to be compared with a checkpoint.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if rows of the gaps were never archived.
    pub async fn covers(&self, log: &LogId, gaps: &[Range<u64>]) -> Result<Vec<Vec<Hash>>, ReadError> {
        // Only gaps that begin or end within a tile need its leaves.
        let edges = gaps.iter().filter(|gap| !gap.is_empty()).flat_map(|gap| [gap.start, gap.end]);
        let mut leaves: Vec<u64> = edges.filter(|edge| edge % TILE_WIDTH != 0).map(|edge| edge / TILE_WIDTH).collect();
        leaves.dedup();
        let mut known = HashMap::new();
        let mut found = Vec::with_capacity(gaps.len());
        for gap in gaps {
            known.retain(|(level, index), _| *level > 0 || *index >= gap.start / TILE_WIDTH);
            found.push(self.cover(log, gap.clone(), &leaves, &mut known).await?);
        }
        Ok(found)
    }

    async fn cover(
        &self,
        log: &LogId,
        gap: Range<u64>,
        leaves: &[u64],
        known: &mut HashMap<TileAt, Vec<Hash>>,
    ) -> Result<Vec<Hash>, ReadError> {
        if gap.is_empty() {
            return Ok(Vec::new());
        }
        let missing = || {
            let (from, last) = (gap.start, gap.end - 1);
            ReadError::NotArchived { rows: format!("some of the rows {from} to {last} of {log}") }
        };
        let of_log = self.catalog().log(log).ok_or_else(missing)?;
        let range = of_log.range_of(gap.end - 1).ok_or_else(missing)?;
        let begin = gap.start.max(range.from_seq);
        let hashes = loop {
            let mut hashes = Vec::new();
            let mut tree = TreeReader::new(KnownTiles(known), range.to_seq);
            match cover_hashes(&mut tree, begin..gap.end, &mut hashes) {
                Ok(()) => break hashes,
                Err((0, index)) => self.read_leaves(log, range, index, leaves, known).await?,
                Err((level, index)) => {
                    let hashes = self.tile(log, range, level, index).await?;
                    known.insert((level, index), hashes);
                }
            }
        };
        if begin == gap.start {
            return Ok(hashes);
        }
        // Of the rows before the range, only the compact range is known.
        let before = self.before(log, range).await?;
        let before = before.filter(|_| gap.start == 0).ok_or_else(missing)?;
        let mut whole = Cover::new(0, range.from_seq, before.hashes().to_vec()).ok_or_else(missing)?;
        let rest = Cover::new(begin, gap.end, hashes).ok_or_else(missing)?;
        if whole.append(&rest, |_, _| {}) { Ok(whole.hashes().to_vec()) } else { Err(missing()) }
    }

    /// Reads the leaves of a tile, and of those that will be needed next.
    async fn read_leaves(
        &self,
        log: &LogId,
        range: &CatalogRange,
        index: u64,
        leaves: &[u64],
        known: &mut HashMap<TileAt, Vec<Hash>>,
    ) -> Result<(), ReadError> {
        let next = leaves.iter().copied().filter(|tile| *tile > index);
        let next = next.take_while(|tile| (tile + 1) * TILE_WIDTH <= range.to_seq).take(TILES_AT_ONCE - 1);
        let wanted: Vec<u64> = [index].into_iter().chain(next).collect();
        for tile in &wanted {
            let end = ((tile + 1) * TILE_WIDTH).min(range.to_seq);
            let width = usize::try_from(end - tile * TILE_WIDTH).unwrap_or_default();
            known.insert((0, *tile), vec![[0; HASH_BYTES]; width]);
        }
        for row in self.tiles(log, &wanted).await? {
            let tile = known.get_mut(&(0, row.seq / TILE_WIDTH));
            let at = usize::try_from(row.seq % TILE_WIDTH).unwrap_or_default();
            if let Some(hash) = tile.and_then(|tile| tile.get_mut(at)) {
                *hash = row.leaf();
            }
        }
        Ok(())
    }

    /// Hashes that lead from the last archived row of a range to the end of its checkpoint.
    ///
    /// # Errors
    /// As for [`Reader::covers`].
    pub async fn rest(&self, log: &LogId, range: &CatalogRange) -> Result<Vec<Hash>, ReadError> {
        Ok(self.tree_at(log, range, range.to_seq - 1).await?.rest.clone())
    }

    /// Hashes of a tile above level 0, as far as their rows are below the end of the range. Those of rows before the range are zero:
    /// no perfect subtree of rows of the range contains them.
    async fn tile(&self, log: &LogId, range: &CatalogRange, level: u32, index: u64) -> Result<Vec<Hash>, ReadError> {
        let shift = TILE_LEVELS * level;
        let first = index * TILE_WIDTH;
        let end = (first + TILE_WIDTH).min(range.to_seq >> shift);
        let mut hashes = vec![[0; HASH_BYTES]; usize::try_from(end.saturating_sub(first)).unwrap_or_default()];
        let is_full = end == first + TILE_WIDTH && range.from_seq <= first << shift;
        if is_full && let Some(hashes) = self.stored_tile(log, level, index).await? {
            return Ok(hashes);
        }
        for (hash, at) in hashes.iter_mut().zip(first..) {
            let rows = at << shift..(at + 1) << shift;
            if rows.start < range.from_seq {
                continue;
            }
            *hash = match level {
                1 => {
                    let tree = self.tree_at(log, range, rows.end - 1).await?;
                    let of_step = at.checked_sub(tree.first_tile()).and_then(|at| usize::try_from(at).ok());
                    let root = of_step.and_then(|at| tree.tiles.get(at)).copied();
                    root.ok_or_else(|| ReadError::changed("steps", format!("a step lacks hashes of {log}")))?
                }
                _ => perfect_root(&Box::pin(self.tile(log, range, level - 1, at)).await?),
            };
        }
        Ok(hashes)
    }

    /// Reads a full tile; `None` if there is no such object, because the last step was interrupted after its commit.
    async fn stored_tile(&self, log: &LogId, level: u32, index: u64) -> Result<Option<Vec<Hash>>, ReadError> {
        let origin = log.origin(self.catalog().cluster().as_str());
        let name = names::tile(&origin, level, index);
        let bytes = match self.store().read(&name, TILE_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        if bytes.len() as u64 != TILE_BYTES || !rest.is_empty() {
            return Err(ReadError::changed(&name, "it is not a full tile"));
        }
        Ok(Some(hashes.to_vec()))
    }
}

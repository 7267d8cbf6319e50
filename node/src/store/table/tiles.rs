//! The Merkle tree in the database: full tiles are rows of `tiles`, everything else is computed from the entries themselves
//! (docs/format.md, "Tree").
//!
//! Only full tiles are stored. They never change, so storing them costs one row per 256 entries; the unfinished tile of each
//! level is rebuilt from the level below.

use piperoll_format::merkle::{
    FullTile, HASH_BYTES, Hash, TILE_LEVELS, TILE_WIDTH, TileSource, TreeBuilder, leaf_hash,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

/// Lowest bit of the level in the key of a tile in `tiles`; the level is the highest byte.
const LEVEL_SHIFT: u32 = 56;

/// Reason why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("tile {index} of level {level} is missing")]
    TileMissing { level: u32, index: u64 },
    #[error("tile {index} of level {level} does not consist of {TILE_WIDTH} hashes")]
    TileForm { level: u32, index: u64 },
    #[error("row {0} is missing")]
    RowMissing(u64),
    #[error("the hashes of rows below {0} were removed when the rows were pruned")]
    Pruned(u64),
    #[error("the tree's right edge has the wrong number of hashes for {0} rows")]
    Edge(u64),
}

pub(in crate::store) const INSERT_TILE: &str = "INSERT INTO tiles (id, root, hashes) VALUES (?1, ?2, ?3)";

pub(in crate::store) fn tile_id(level: u32, index: u64) -> i64 {
    // Levels are below 8 and indexes below 2^48, because no log has 2^56 rows.
    i64::try_from(u64::from(level) << LEVEL_SHIFT | index).unwrap_or(i64::MAX)
}

pub(in crate::store) fn insert_tile(
    statement: &mut rusqlite::CachedStatement<'_>,
    tile: &FullTile,
) -> rusqlite::Result<()> {
    statement.execute((tile_id(tile.level, tile.index), tile.root, tile.to_bytes())).map(|_| ())
}

/// Reads a stored full tile without verifying it.
pub(in crate::store) fn stored_tile(conn: &Connection, level: u32, index: u64) -> Result<Vec<Hash>, TreeError> {
    let bytes: Vec<u8> = conn
        .prepare_cached("SELECT hashes FROM tiles WHERE id = ?1")?
        .query_row([tile_id(level, index)], |row| row.get(0))
        .optional()?
        .unwrap_or_default();
    if bytes.is_empty() {
        let floor: u64 =
            conn.prepare_cached("SELECT coalesce(max(to_seq), 0) FROM pruned")?.query_row([], |row| row.get(0))?;
        let end = (index + 1).checked_shl(TILE_LEVELS * (level + 1)).unwrap_or(u64::MAX);
        return Err(if end <= floor { TreeError::Pruned(floor) } else { TreeError::TileMissing { level, index } });
    }
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if hashes.len() as u64 != TILE_WIDTH || !rest.is_empty() {
        return Err(TreeError::TileForm { level, index });
    }
    Ok(hashes.to_vec())
}

/// Roots of the full tiles `from..to` of a level.
pub(in crate::store) fn stored_roots(
    conn: &Connection,
    level: u32,
    from: u64,
    to: u64,
) -> Result<Vec<Hash>, TreeError> {
    let mut statement = conn.prepare_cached("SELECT id, root FROM tiles WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
    let mut rows = statement.query((tile_id(level, from), tile_id(level, to)))?;
    let mut found = Vec::new();
    for index in from..to {
        let row = rows.next()?.ok_or(TreeError::TileMissing { level, index })?;
        if row.get::<_, i64>(0)? != tile_id(level, index) {
            return Err(TreeError::TileMissing { level, index });
        }
        found.push(bytes(row, 1)?.try_into().map_err(|_| TreeError::TileForm { level, index })?);
    }
    Ok(found)
}

/// Computes the leaves of the rows `from..to` from their stored bytes.
pub(in crate::store) fn leaves(conn: &Connection, from: u64, to: u64) -> Result<Vec<Hash>, TreeError> {
    let mut statement =
        conn.prepare_cached("SELECT seq, body, mac FROM entries WHERE seq >= ?1 AND seq < ?2 ORDER BY seq")?;
    let mut rows = statement.query((from, to))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let expected = from + found.len() as u64;
        if row.get::<_, u64>(0)? != expected {
            return Err(TreeError::RowMissing(expected));
        }
        let (body, mac) = (bytes(row, 1)?, bytes(row, 2)?);
        found.push(match kept_leaf(conn, expected, body, mac)? {
            Some(kept) => kept,
            None => leaf_hash(body, mac),
        });
    }
    let end = from + found.len() as u64;
    if end < to { Err(TreeError::RowMissing(end)) } else { Ok(found) }
}

/// Returns the stored leaf of an erased row, which cannot be recomputed from the row.
fn kept_leaf(conn: &Connection, seq: u64, body: &[u8], mac: &[u8]) -> rusqlite::Result<Option<Hash>> {
    if !body.is_empty() || !mac.is_empty() {
        return Ok(None);
    }
    let mut statement = conn.prepare_cached("SELECT leaf FROM erased WHERE seq = ?1")?;
    let kept: Option<Vec<u8>> = statement.query_row([seq], |row| row.get(0)).optional()?;
    Ok(kept.and_then(|leaf| leaf.try_into().ok()))
}

fn bytes<'a>(row: &'a rusqlite::Row<'_>, index: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(match row.get_ref(index)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    })
}

/// The tree stored in one database.
pub(in crate::store) struct StoredTiles<'a>(pub(in crate::store) &'a Connection);

impl TileSource for StoredTiles<'_> {
    type Error = TreeError;

    fn tile(&mut self, level: u32, index: u64, width: u64) -> Result<Vec<Hash>, TreeError> {
        let first = index * TILE_WIDTH;
        match stored_tile(self.0, level, index) {
            // The tree of an earlier size may end inside a tile that is full by now, so truncate the tile.
            Ok(mut tile) => {
                tile.truncate(usize::try_from(width).unwrap_or(usize::MAX));
                Ok(tile)
            }
            Err(TreeError::TileMissing { .. }) if width < TILE_WIDTH => match level.checked_sub(1) {
                None => leaves(self.0, first, first + width),
                Some(below) => stored_roots(self.0, below, first, first + width),
            },
            Err(error) => Err(error),
        }
    }
}

/// Returns a builder that continues after the first `size` rows.
pub(in crate::store) fn resume(conn: &Connection, size: u64) -> Result<TreeBuilder, TreeError> {
    let mut edge = Vec::new();
    let mut tiles = StoredTiles(conn);
    for level in 0u32.. {
        let there = size >> (TILE_LEVELS * level);
        if there == 0 {
            break;
        }
        let width = there % TILE_WIDTH;
        edge.push(if width == 0 { Vec::new() } else { tiles.tile(level, there / TILE_WIDTH, width)? });
    }
    TreeBuilder::resume(size, edge).ok_or(TreeError::Edge(size))
}

/// Returns whether the newest full tile matches its rows; `first` is the first row that still exists.
pub(in crate::store) fn check_last_tile(
    conn: &Connection,
    first: u64,
    size: u64,
) -> Result<Result<(), String>, TreeError> {
    let Some(index) = (size / TILE_WIDTH).checked_sub(1).filter(|index| index * TILE_WIDTH >= first) else {
        return Ok(Ok(()));
    };
    let stored = stored_tile(conn, 0, index)?;
    let first = index * TILE_WIDTH;
    let made = leaves(conn, first, first + TILE_WIDTH)?;
    Ok(match stored.iter().zip(&made).position(|(stored, made)| stored != made) {
        None => Ok(()),
        Some(at) => Err(format!("row {} does not match its leaf in the tree", first + at as u64)),
    })
}

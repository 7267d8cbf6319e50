//! The copies for people: the timeline as NDJSON and as CSV. They are made from the proven bytes, by the writer and again
//! by the verifier.

use super::rows::StoredEntry;
use crate::log::csv;

/// A row of the timeline, with its line end.
pub fn timeline_line(row: &StoredEntry<'_>, out: &mut Vec<u8>) {
    row.to_row().write_json(out);
    out.push(b'\n');
}

/// The same row for a spreadsheet.
pub fn csv_line(row: &StoredEntry<'_>, out: &mut Vec<u8>) {
    csv::write_row(&row.to_row(), out);
}

/// Puts the rows of all nodes into the one order there is. Nodes come in the order of their ids, so a node's place in the
/// list compares as its id does.
pub fn merged<'a>(nodes: Vec<Vec<StoredEntry<'a>>>) -> Vec<StoredEntry<'a>> {
    let mut all: Vec<(usize, StoredEntry<'a>)> = Vec::with_capacity(nodes.iter().map(Vec::len).sum());
    for (node, rows) in nodes.into_iter().enumerate() {
        all.extend(rows.into_iter().map(|row| (node, row)));
    }
    all.sort_by_key(|(node, row)| (row.timestamp(), *node, row.seq()));
    all.into_iter().map(|(_, row)| row).collect()
}

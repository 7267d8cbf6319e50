//! The copies for people: the timeline as NDJSON and as CSV. They are made from the proven bytes, by the writer and again
//! by the verifier.

use super::rows::StoredEntry;
use crate::log::csv;
use crate::log::row::Row;
use crate::log::verify::Integrity;

/// A row of the timeline, with its line end. What is in a bundle is proven, so every line says so.
pub fn timeline_line(body: &[u8], mac: &[u8], out: &mut Vec<u8>) {
    row(body, mac).write_json(out);
    out.push(b'\n');
}

/// The same row for a spreadsheet.
pub fn csv_line(body: &[u8], mac: &[u8], out: &mut Vec<u8>) {
    csv::write_row(&row(body, mac), out);
}

fn row<'a>(body: &'a [u8], mac: &'a [u8]) -> Row<'a> {
    Row { body: body.into(), mac: mac.into(), integrity: Integrity::Ok, witnessed: true, reason: None, found_at: None }
}

/// Puts the rows of all nodes into the one order there is. Nodes come in the order of their ids, so a node's place in the
/// list compares as its id does.
pub fn merged<'a>(nodes: Vec<Vec<StoredEntry<'a>>>) -> Vec<StoredEntry<'a>> {
    let mut all: Vec<(usize, StoredEntry<'a>)> = Vec::with_capacity(nodes.iter().map(Vec::len).sum());
    for (node, rows) in nodes.into_iter().enumerate() {
        all.extend(rows.into_iter().map(|row| (node, row)));
    }
    all.sort_by_key(|(node, row)| (row.prefix.timestamp, *node, row.prefix.seq));
    all.into_iter().map(|(_, row)| row).collect()
}

//! Human-readable copies of the timeline as NDJSON and CSV. The writer generates them from the proven bytes, and the verifier
//! generates them again for comparison.

use super::archive::Member;
use super::manifest::Manifest;
use super::names::{CSV, README, README_TEXT, REPORT, TIMELINE, TRUST};
use super::report::{REPORT_ROWS_MAX, report};
use super::rows::StoredEntry;
use super::verdict::{Check, Checks, Verdict};
use crate::csv;

/// Appends one line of the NDJSON timeline, including its line end.
pub fn timeline_line(row: &StoredEntry<'_>, out: &mut Vec<u8>) {
    row.to_row().write_json(out);
    out.push(b'\n');
}

/// Appends one line of the CSV timeline, including its line end.
pub fn csv_line(row: &StoredEntry<'_>, out: &mut Vec<u8>) {
    csv::write_row(&row.to_row(), out);
}

/// Merges the entries of all nodes into the order of the timeline: by time, then node id, then `seq`. The nodes must be ordered
/// by id, so that their indexes have the same order as their ids.
pub fn merged<'a>(nodes: Vec<Vec<StoredEntry<'a>>>) -> Vec<StoredEntry<'a>> {
    let mut all: Vec<(usize, StoredEntry<'a>)> = Vec::with_capacity(nodes.iter().map(Vec::len).sum());
    for (node, rows) in nodes.into_iter().enumerate() {
        all.extend(rows.into_iter().map(|row| (node, row)));
    }
    all.sort_by_key(|(node, row)| (row.timestamp(), *node, row.seq()));
    all.into_iter().map(|(_, row)| row).collect()
}

/// Recreates the human-readable members and compares them with those of the bundle.
pub(super) fn check_readable(
    manifest: &Manifest,
    rows: Vec<StoredEntry<'_>>,
    members: &[Member<'_>],
    checks: Checks,
    verdict: &mut Verdict,
) {
    verdict.rows = rows.len() as u64;
    if checks.on(Check::Counts) && manifest.rows != verdict.rows {
        verdict.find(None, format!("the manifest states {} rows, but there are {}", manifest.rows, rows.len()));
    }
    let names: Vec<&str> = members.iter().map(|member| member.name).collect();
    let [timeline, csv_copy, page, _, readme] = members else {
        verdict.find(None, format!("unexpected members after the nodes: {names:?}"));
        return;
    };
    if names != [TIMELINE, CSV, REPORT, TRUST, README] {
        verdict.find(None, format!("unexpected members after the nodes: {names:?}"));
        return;
    }
    let table = || !checks.on(Check::Csv) || same(csv_copy.bytes, &csv::header(), &rows, csv_line);
    let (lines_fit, table_fits) = std::thread::scope(|scope| {
        let beside = scope.spawn(table);
        let lines_fit = !checks.on(Check::Timeline) || same(timeline.bytes, &[], &rows, timeline_line);
        (lines_fit, beside.join().unwrap_or_else(|_| table()))
    });
    if !lines_fit {
        verdict.find(None, format!("{TIMELINE} does not match the proven rows"));
    }
    if !table_fits {
        verdict.find(None, format!("{CSV} does not match the proven rows"));
    }
    let first = &rows[..rows.len().min(REPORT_ROWS_MAX)];
    if checks.on(Check::Report) && page.bytes != report(manifest, first).as_bytes() {
        verdict.find(None, format!("{REPORT} does not match the manifest and the proven rows"));
    }
    if checks.on(Check::Readme) && readme.bytes != README_TEXT.as_bytes() {
        verdict.find(None, format!("{README} does not have the expected text"));
    }
}

/// Returns whether a copy consists of the head and exactly one line for every entry.
fn same(copy: &[u8], head: &[u8], rows: &[StoredEntry<'_>], write: impl Fn(&StoredEntry<'_>, &mut Vec<u8>)) -> bool {
    let Some(mut rest) = copy.strip_prefix(head) else { return false };
    let mut line = Vec::new();
    for row in rows {
        line.clear();
        write(row, &mut line);
        match rest.strip_prefix(line.as_slice()) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

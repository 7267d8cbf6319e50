//! Human-readable report: one HTML file without scripts, generated from the manifest and the first entries.

use askama::Template;

use super::manifest::{Manifest, NodePart};
use super::names::ARCHIVED;
use super::rows::StoredEntry;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;

/// Maximum number of entries in the report; other members contain the complete timeline.
pub const REPORT_ROWS_MAX: usize = 2_000;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    manifest: &'a Manifest,
    from: String,
    to: String,
    rows: Vec<Line>,
    rows_left_out: u64,
    missing: Vec<&'a NodePart>,
    rejected: u64,
}

/// One line of the table.
struct Line {
    time: String,
    place: String,
    user: String,
    action: String,
    what: String,
    address: String,
    outcome: String,
}

/// Renders the report. `rows` are the first entries of the timeline, at most [`REPORT_ROWS_MAX`]. The report does not list the
/// members' digests, because its own digest is one of them.
pub fn report(manifest: &Manifest, rows: &[StoredEntry<'_>]) -> String {
    let bound = |time: Timestamp, open: Timestamp| if time == open { "open".to_owned() } else { time.to_text() };
    let page = Page {
        manifest,
        from: bound(manifest.asked.from, Timestamp::MIN),
        to: bound(manifest.asked.to, Timestamp::MAX),
        rows: rows.iter().map(line).collect(),
        rows_left_out: manifest.rows.saturating_sub(rows.len() as u64),
        missing: manifest
            .nodes
            .iter()
            .filter(|node| !["ok", ARCHIVED, "excluded"].contains(&node.status.as_str()))
            .collect(),
        rejected: manifest.nodes.iter().map(|node| node.rejected).sum(),
    };
    // Writing to a String cannot fail, and the template calls nothing that could fail.
    page.render().unwrap_or_default()
}

fn line(row: &StoredEntry<'_>) -> Line {
    let gone = row.to_row().reason.map(std::borrow::Cow::into_owned);
    // An erased entry has no content to show, and the content of its erasure statement is not the entry's own.
    let view = EntryView::parse(row.body).filter(|_| gone.is_none()).unwrap_or_default();
    let text = |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
    let entity = match (view.entity_type.as_deref(), view.entity_id.as_deref()) {
        (Some(kind), Some(id)) => format!("{kind}/{id}"),
        (kind, _) => kind.unwrap_or_default().to_owned(),
    };
    Line {
        time: row.timestamp().to_text(),
        place: format!("{}/{}", row.prefix.node_id, row.seq()),
        user: text(&view.user),
        action: text(&view.action),
        what: gone.unwrap_or_else(|| view.description.as_deref().map_or(entity, str::to_owned)),
        address: text(&view.ip_address),
        outcome: text(&view.outcome),
    }
}

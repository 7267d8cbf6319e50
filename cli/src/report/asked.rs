//! Prepares the input of a report: the time range, and names that are quoted as filter values.

use piperoll_format::time::Timestamp;

/// Requested time range of a report.
#[derive(Debug, Clone, Copy)]
pub(super) struct BundleRequest {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Quotes a filter value, so that only `*` keeps its special meaning.
pub(super) fn pattern(text: &str) -> String {
    let piece = |piece: &str| if piece.is_empty() { String::new() } else { quoted(piece) };
    text.split('*').map(piece).collect::<Vec<_>>().join("*")
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

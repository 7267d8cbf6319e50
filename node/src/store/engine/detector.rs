//! Rebuilds the state of the detection rules from the log at startup, so that the rules take earlier activity into account.

use std::sync::Arc;

use piperoll_detect::{Detector, Rules};
use piperoll_format::entry::RuleInput;
use piperoll_format::order::Order;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_protocol::node::ScanRequest;
use piperoll_query::filter::Filter;
use rusqlite::Connection;

use super::writer::Writer;
use crate::store::read::scan::{Scan, ScanContext};
use crate::store::table::error::ReadError;

/// Maximum numbers of rows that are reread at startup, newest first: `LATE_ROWS_MAX` for recent activity, `LOGIN_ROWS_MAX` for
/// the origins of logins. On a busy node, these rows may not cover the whole period that the rules need; 50,000 rows take about a
/// tenth of a second.
const LATE_ROWS_MAX: u64 = 50_000;
const LOGIN_ROWS_MAX: u64 = 100_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Rebuilds the detector's state from the log. If the log cannot be read, logs a warning and returns a detector without earlier
/// state.
pub(in crate::store) fn remember(writer: &Writer, rules: Rules) -> Detector {
    let mut detector = Detector::new(rules);
    let now = writer.now();
    let reach = detector.rules().reach();
    // Reread two windows, because an entry may describe an event that occurred up to one window before the entry was recorded.
    let late = (!reach.is_zero()).then(|| (String::new(), now.minus(reach * 2), LATE_ROWS_MAX));
    let days = detector.rules().login_days().map(u64::from);
    let logins = days.map(|days| {
        let since = now.minus(std::time::Duration::from_secs(days * SECONDS_PER_DAY));
        ("category:auth,audit outcome:success".to_owned(), since, LOGIN_ROWS_MAX)
    });
    let late = late.map(|(filter, from, limit)| (filter, from, limit, Detector::remember_lately as Remember));
    let logins = logins.map(|(filter, from, limit)| (filter, from, limit, Detector::remember_login as Remember));
    for (filter, from, limit, remember) in logins.into_iter().chain(late) {
        if let Err(error) = learn(writer, &mut detector, &filter, from, limit, remember) {
            tracing::warn!(%error, "cannot restore the earlier state of the detection rules; starting without it");
        }
    }
    detector.commit();
    detector
}

type Remember = fn(&mut Detector, &RuleInput, Timestamp);

fn learn(
    writer: &Writer,
    detector: &mut Detector,
    filter: &str,
    from: Timestamp,
    limit: u64,
    remember: Remember,
) -> Result<(), ReadError> {
    let request = ScanRequest {
        filter: filter.to_owned(),
        from,
        to: Timestamp::MAX,
        order: Order::Desc,
        limit: Some(limit),
        after: None,
        from_seq: None,
        head: None,
        generation: None,
        count: None,
        follow: false,
        prove: None,
    };
    let parsed = Filter::parse_stored(filter, writer.now()).map_err(|e| ReadError::Filter(e.to_string()))?;
    let beside = ScanContext { index: Some(Arc::clone(writer.index())), tiles: Arc::default() };
    let head = writer.next_seq().checked_sub(1);
    let conn: &Connection = writer.conn();
    let mut scan = Scan::plan(conn, &request, parsed, head, writer.keys().ring.clone(), writer.generation(), beside)?;
    let mut found: Vec<(RuleInput, Timestamp)> = Vec::new();
    loop {
        let batch = scan.next_batch(conn)?;
        for row in batch.rows.iter().filter(|row| row.checked.integrity == Integrity::Ok) {
            if let Some(view) = EntryView::parse(&row.body).filter(|view| view.via != "node") {
                found.push((rule_input(&view), row.timestamp));
            }
        }
        if batch.done {
            break;
        }
    }
    for (rule_input, recorded) in found.iter().rev() {
        remember(detector, rule_input, *recorded);
    }
    Ok(())
}

fn rule_input(view: &EntryView<'_>) -> RuleInput {
    let text = |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().map(str::to_owned);
    RuleInput {
        occurred_at: view.occurred_at.as_deref().and_then(|time| Timestamp::parse_rfc3339(time).ok()),
        user: text(&view.user),
        user_type: text(&view.user_type),
        impersonator: text(&view.impersonator),
        category: text(&view.category).unwrap_or_default(),
        action: text(&view.action).unwrap_or_default(),
        outcome: text(&view.outcome),
        entity_type: text(&view.entity_type),
        entity_id: text(&view.entity_id),
        ip_address: text(&view.ip_address).or_else(|| text(&view.peer_address)),
        user_agent: text(&view.user_agent),
        has_changes: view.changes.is_some(),
        // Rules on amounts check each entry on its own and need no earlier state.
        amounts: Vec::new(),
    }
}

//! Reads the fields of an entry that reports use.

use std::time::Duration;

use anyhow::Context as _;
use piperoll_format::time::{Timestamp, parse_duration};
use piperoll_format::view::EntryView;

/// One verified entry. Reports show the time at which the event happened if the caller stated it, and the time of recording
/// otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) node: String,
    pub(super) seq: u64,
    /// Time of the event, in microseconds since 1970.
    pub(super) time: i64,
    /// Time of recording, by which a report's range selects entries.
    pub(super) recorded: i64,
    pub(super) user: Option<String>,
    pub(super) impersonator: Option<String>,
    pub(super) action: String,
    pub(super) outcome: String,
    pub(super) entity: Option<(String, Option<String>)>,
    pub(super) target: Option<String>,
    pub(super) address: Option<String>,
    pub(super) session: Option<String>,
    pub(super) description: Option<String>,
    /// The text of `changes` and `details`.
    pub(super) details: String,
}

impl Event {
    pub(super) fn read(body: &str) -> Option<Self> {
        let view = EntryView::parse(body.as_bytes())?;
        let time = view.occurred_at.as_deref().unwrap_or(&view.timestamp);
        let own = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let details = [view.changes, view.details].iter().flatten().map(|raw| raw.get()).collect::<Vec<_>>().join(" ");
        Some(Self {
            node: view.node_id.to_string(),
            seq: view.seq,
            time: Timestamp::parse_rfc3339(time).ok()?.micros(),
            recorded: Timestamp::parse_rfc3339(&view.timestamp).ok()?.micros(),
            user: own(&view.user),
            impersonator: own(&view.impersonator),
            action: own(&view.action).unwrap_or_default(),
            outcome: view.outcome_or_unknown().to_owned(),
            entity: own(&view.entity_type).map(|kind| (kind, own(&view.entity_id))),
            target: own(&view.target),
            address: own(&view.ip_address),
            session: own(&view.session),
            description: own(&view.description),
            details,
        })
    }

    /// Returns the person who acted: the impersonator if there is one, otherwise the user.
    pub(super) fn person(&self) -> Option<&str> {
        self.impersonator.as_deref().or(self.user.as_deref())
    }

    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.node, self.seq)
    }

    pub(super) fn when(&self) -> String {
        when(self.time)
    }

    pub(super) fn entity_text(&self) -> String {
        match &self.entity {
            Some((kind, Some(id))) => format!("{kind}/{id}"),
            Some((kind, None)) => kind.clone(),
            None => "-".to_owned(),
        }
    }

    pub(super) fn what(&self) -> String {
        self.description.clone().or_else(|| self.target.clone()).unwrap_or_else(|| self.entity_text())
    }
}

/// Formats a time to the second, in UTC.
pub(super) fn when(micros: i64) -> String {
    let text = Timestamp::from_micros(micros).to_text();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// Parses a duration such as `24h` to microseconds.
pub(super) fn duration(text: &str) -> anyhow::Result<i64> {
    let length = parse_duration(text).filter(|length| *length > Duration::ZERO);
    let micros = length.and_then(|length| i64::try_from(length.as_micros()).ok());
    micros.with_context(|| format!("{text:?} is not a duration such as 10m, 24h or 7d"))
}

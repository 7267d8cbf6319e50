//! A validated query.

use piperoll_format::cursor::{Cursor, CursorError, CursorKey, QueryHash};
use piperoll_format::limits::{PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX, RANGE_DEFAULT_DAYS};
use piperoll_format::order::{Key, Order};
use piperoll_format::time::{TimeError, Timestamp};
use piperoll_query::filter::{FILTER_VERSION, Filter, FilterError, canonical_key, is_key};
use piperoll_query::human_time;
use piperoll_query::stats::Plan;
use piperoll_query::zone::{Now, Zone, ZoneError};

use crate::access::scope::Scope;

/// Output format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A page with envelope.
    Json,
    /// A stream of rows with a final record.
    Ndjson,
    /// A stream for spreadsheets, without a final record.
    Csv,
}

/// Completeness that the caller requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Require {
    /// Answer with the nodes that are available, and name the missing ones.
    Any,
    /// Answer only if every expected node answered in full.
    All,
}

/// A query ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) filter: Filter,
    /// Version of the filter language in which the filter was parsed. A query that continues from a cursor keeps the version of
    /// its first page.
    pub(crate) filter_version: u32,
    /// Hints for the author of the filter.
    pub(crate) hints: Vec<String>,
    /// Hints that are shown if nothing matches.
    pub(crate) hints_when_empty: Vec<String>,
    /// Time zone of dates that do not name one.
    pub(crate) zone: Zone,
    /// Time at which the first page was requested.
    pub(crate) asked_at: Timestamp,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) order: Order,
    pub(crate) format: Format,
    pub(crate) limit: Option<usize>,
    pub(crate) require: Require,
    pub(crate) cursor: Option<Cursor>,
    /// Key of the row after which the page begins.
    pub(crate) after: Option<Key>,
    pub(crate) hash: QueryHash,
    /// Whether to return only rows that witnessed checkpoints cover, which can be proven to others.
    pub(crate) sealed: bool,
    /// Whether to return all existing rows regardless of their time. Pruned rows then do not count as missing.
    pub(crate) all_there: bool,
    /// Whether one row is requested by its seq, so that the rest of its log does not matter.
    pub(crate) one_row: bool,
    /// Set if nodes count the matching rows instead of sending them.
    pub(crate) count: Option<Plan>,
    /// Scope of the caller, which is also part of `filter`.
    pub(crate) scope: Scope,
    /// Maximum bytes of rows in one page, and maximum bytes that one node may send for it. A page that reaches the limit ends
    /// early, with a cursor.
    pub(crate) page_bytes: usize,
}

/// Maximum bytes of one page when capacity is available.
pub(crate) const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Maximum bytes of one page while this caller, or all callers together, have too many full-size pages that are not read yet.
pub(crate) const PAGE_BYTES_SMALL: usize = 256 * 1024;

/// Reasons for refusing a query, each with a stable code for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("{parameter}: {source}")]
    Time { parameter: &'static str, source: TimeError },
    #[error("tz: {0}")]
    Zone(#[from] ZoneError),
    #[error("{parameter}={value:?} is not allowed; {allowed}")]
    Parameter { parameter: String, value: String, allowed: String },
    #[error(
        "unknown parameter {0:?}; use a filter key, filter, from (or since), to (or until), tz, order, format, limit, cursor or require"
    )]
    Unknown(String),
    #[error("duplicate parameter {0:?}; only filter keys can be repeated")]
    Twice(String),
    #[error("`from` ({from}) is after `to` ({to})")]
    Backwards { from: Timestamp, to: Timestamp },
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

impl QueryError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Filter(_) => "bad_filter",
            Self::Time { .. } | Self::Backwards { .. } => "bad_range",
            Self::Parameter { .. } | Self::Unknown(_) | Self::Twice(_) | Self::Zone(_) => "bad_parameter",
            Self::Cursor(CursorError::Forged) => "bad_cursor",
            Self::Cursor(CursorError::OtherQuery) => "cursor_of_another_query",
        }
    }
}

/// Parameters as they were typed.
#[derive(Default)]
struct RawParameters {
    /// `filter` and the filter keys, as name and value.
    filter: Vec<(String, String)>,
    from: Option<String>,
    to: Option<String>,
    tz: Option<String>,
    order: Option<String>,
    format: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    require: Option<String>,
}

impl Query {
    /// Parses the pairs of a query string. `scope` limits what the caller may see, and cursors are bound to it.
    pub(crate) fn parse(
        pairs: Vec<(String, String)>,
        now: Timestamp,
        key: &CursorKey,
        scope: &Scope,
    ) -> Result<Self, QueryError> {
        let typed = RawParameters::read(pairs)?;
        let bad = |parameter: &str, value: &str, allowed: &str| QueryError::Parameter {
            parameter: parameter.to_owned(),
            value: value.to_owned(),
            allowed: allowed.to_owned(),
        };
        let order = match typed.order.as_deref() {
            None | Some("desc") => Order::Desc,
            Some("asc") => Order::Asc,
            Some(other) => return Err(bad("order", other, "use asc or desc")),
        };
        let format = match typed.format.as_deref() {
            None | Some("json") => Format::Json,
            Some("ndjson") => Format::Ndjson,
            Some("csv") => Format::Csv,
            Some(other) => return Err(bad("format", other, "use json, ndjson or csv")),
        };
        let require = match typed.require.as_deref() {
            None | Some("any") => Require::Any,
            Some("all") => Require::All,
            Some(other) => return Err(bad("require", other, "use any or all")),
        };
        let limit_max = if format == Format::Json { PAGE_ROWS_MAX } else { usize::MAX };
        let limit = match typed.limit.as_deref() {
            None if format == Format::Json => Some(PAGE_ROWS_DEFAULT),
            None => None,
            Some(text) => match text.parse::<usize>() {
                Ok(limit) if (1..=limit_max).contains(&limit) => Some(limit),
                _ => {
                    return Err(bad(
                        "limit",
                        text,
                        &format!("a page has 1 to {PAGE_ROWS_MAX} rows; use format=ndjson for more"),
                    ));
                }
            },
        };
        // The cursor is bound to filter and range as typed: "the last 7 days" on page two means the same 7 days as on page one.
        let mut parts = vec![
            order.as_str(),
            typed.from.as_deref().unwrap_or_default(),
            typed.to.as_deref().unwrap_or_default(),
            scope.text().unwrap_or_default(),
        ];
        parts.extend(typed.filter.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        // The zone comes after all other parts, so that cursors issued before this parameter existed stay valid.
        parts.extend(typed.tz.iter().flat_map(|zone| ["tz", zone]));
        let hash = QueryHash::of(&parts);
        let cursor = typed.cursor.as_deref().map(|text| Cursor::decode(text, key, &hash)).transpose()?;
        let asked_at = cursor.as_ref().map_or(now, |cursor| cursor.asked_at);
        let filter_version = cursor.as_ref().map_or(FILTER_VERSION, |cursor| cursor.filter_version);
        let zone = typed.tz.as_deref().map(Zone::parse).transpose()?.unwrap_or_default();
        let (filter, hints) = typed.filter(filter_version, Now { at: asked_at, zone })?;
        let hints_when_empty = filter.hints_when_empty();
        let filter = scope.narrow(filter);
        // Each piece was within the limits. The combined filter that is sent to the nodes must be within the limits
        // too, and must keep its meaning.
        if Filter::parse_stored(&filter.to_string(), asked_at)? != filter {
            return Err(bad(
                "filter",
                &filter.typed(),
                "it cannot be sent to the nodes without changing its meaning; this is a bug in Piperoll",
            ));
        }
        if cursor.is_some() && format != Format::Json {
            return Err(bad("cursor", "…", "a cursor is only valid with format=json; a stream is read in one request"));
        }
        let (from, to) = match &cursor {
            Some(cursor) => (cursor.from, cursor.to),
            None => range(typed.from.as_deref(), typed.to.as_deref(), Now { at: now, zone })?,
        };
        Ok(Self {
            filter,
            filter_version,
            hints,
            hints_when_empty,
            zone,
            asked_at,
            from,
            to,
            order,
            format,
            limit,
            require,
            after: cursor.as_ref().map(|cursor| cursor.last.clone()),
            cursor,
            hash,
            sealed: false,
            all_there: false,
            one_row: false,
            count: None,
            scope: scope.clone(),
            page_bytes: PAGE_BYTES_MAX,
        })
    }
}

/// Returns the requested range; the last seven days by default.
pub(crate) fn range(
    from: Option<&str>,
    to: Option<&str>,
    now: impl Into<Now>,
) -> Result<(Timestamp, Timestamp), QueryError> {
    let now = now.into();
    let time =
        |parameter, text: &str| human_time::parse(text, now).map_err(|source| QueryError::Time { parameter, source });
    let from = match from {
        Some(text) => time("from", text)?,
        None => now.at.plus_micros(-RANGE_DEFAULT_DAYS * 86_400 * 1_000_000),
    };
    let to = match to {
        // A node's clock may run ahead of ours; its newest rows still belong to an open range.
        None | Some("now") => Timestamp::MAX,
        Some(text) => time("to", text)?,
    };
    if from > to {
        return Err(QueryError::Backwards { from, to });
    }
    Ok((from, to))
}

impl RawParameters {
    /// Combines all pieces of the filter, and collects hints about them.
    fn filter(&self, version: u32, now: Now) -> Result<(Filter, Vec<String>), FilterError> {
        let (mut all, mut hints) = (Filter::default(), Vec::new());
        for (name, value) in &self.filter {
            let piece = match name.as_str() {
                "filter" if version < FILTER_VERSION => Filter::parse_stored(value, now)?,
                "filter" => {
                    let typed = Filter::parse_typed(value, now)?;
                    hints.extend(typed.hints);
                    typed.filter
                }
                key if version < FILTER_VERSION => Filter::parse_stored_pair(key, value, now)?,
                key => Filter::parse_pair(canonical_key(key).unwrap_or(key), value, now)?,
            };
            all = all.and(piece);
        }
        Ok((all, hints))
    }

    fn read(pairs: Vec<(String, String)>) -> Result<Self, QueryError> {
        let mut typed = Self::default();
        for (name, value) in pairs {
            let slot = match name.as_str() {
                key if key == "filter" || is_key(key) => {
                    typed.filter.push((name, value));
                    continue;
                }
                "from" | "since" => &mut typed.from,
                "to" | "until" => &mut typed.to,
                "tz" => &mut typed.tz,
                "order" => &mut typed.order,
                "format" => &mut typed.format,
                "limit" => &mut typed.limit,
                "cursor" => &mut typed.cursor,
                "require" => &mut typed.require,
                _ => return Err(QueryError::Unknown(name)),
            };
            if slot.replace(value).is_some() {
                return Err(QueryError::Twice(name));
            }
        }
        Ok(typed)
    }
}

impl Query {
    /// Returns hints for the author of the filter; `nothing` is true if no row matched.
    pub(crate) fn hints(&self, nothing: bool) -> Vec<String> {
        let mut hints = self.hints.clone();
        if nothing && self.cursor.is_none() {
            hints.extend(self.hints_when_empty.iter().cloned());
        }
        hints
    }

    /// Returns the key of the row before which a page is requested, if any.
    pub(crate) fn in_front_of(&self) -> Option<&Key> {
        self.cursor.as_ref().filter(|cursor| cursor.back).map(|cursor| &cursor.last)
    }

    /// Creates a query for all rows of a range, as a stream, requested at `now`.
    pub(crate) fn everything(filter: Filter, (from, to): (Timestamp, Timestamp), order: Order, now: Timestamp) -> Self {
        let hash = QueryHash::of(&[]);
        Self {
            filter,
            filter_version: FILTER_VERSION,
            hints: Vec::new(),
            hints_when_empty: Vec::new(),
            zone: Zone::Utc,
            asked_at: now,
            from,
            to,
            order,
            format: Format::Ndjson,
            limit: None,
            require: Require::Any,
            cursor: None,
            after: None,
            hash,
            sealed: false,
            all_there: from == Timestamp::MIN,
            one_row: false,
            count: None,
            scope: Scope::default(),
            page_bytes: PAGE_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::cursor::Snapshot;

    /// The pages of one answer are parsed in one language version, even if the aggregator is upgraded between them.
    #[test]
    fn a_cursor_keeps_the_language_of_its_first_page() -> Result<(), Box<dyn std::error::Error>> {
        let (key, now) = (CursorKey::new(&[1; 32]), Timestamp::from_micros(1_776_240_000_000_000));
        let pairs = |cursor: Option<String>| {
            let named =
                [("filter", "user:k*"), ("user_type", "a b*")].map(|(name, value)| (name.to_owned(), value.to_owned()));
            named.into_iter().chain(cursor.map(|cursor| ("cursor".to_owned(), cursor))).collect::<Vec<_>>()
        };
        let new = Query::parse(pairs(None), now, &key, &Scope::default())?;
        assert_eq!(new.filter.typed(), "user:k* user_type:\"a b\"*");
        let snapshot =
            |filter_version| Snapshot { asked_at: now, from: now, to: now, heads: Vec::new(), filter_version };
        let last = Key { timestamp: now, node_id: "mx1".parse()?, seq: 7 };
        let old = Cursor::new(&new.hash, snapshot(1), last.clone(), Vec::new()).encode(&key);
        let continued = Query::parse(pairs(Some(old)), now, &key, &Scope::default())?;
        assert_eq!(continued.filter.typed(), "user:\"k*\" user_type:\"a b*\"");
        assert_eq!(continued.filter_version, 1);
        let newer = Cursor::new(&new.hash, snapshot(FILTER_VERSION), last, Vec::new()).encode(&key);
        assert_eq!(Query::parse(pairs(Some(newer)), now, &key, &Scope::default())?.filter, new.filter);
        Ok(())
    }
}

//! `GET /stats`: exact counts over all nodes, with the same completeness statement as for rows. Nodes count from their
//! indexes; with `verify=true` the aggregator reads and verifies the rows, as for an export, and counts them itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Pairs, State};
use axum::response::Response;
use piperoll_format::order::Order;
use piperoll_format::time::{Timestamp, parse_duration};
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::{Envelope, StatsAnswer};
use piperoll_protocol::problem::Problem;
use piperoll_query::stats::{Axis, BUCKETS_MAX, FACETS_MAX, Facet, Plan, TOP_DEFAULT, TOP_MAX};
use serde_json::json;

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use super::log::{answer_stream, describe, known_nodes, pairs_of};
use crate::answer::stream::Output;
use crate::scan::query::{Format, Query, QueryError};
use crate::state::App;

const BUCKET_MIN: Duration = Duration::from_secs(1);

/// Counts entries, values of fields, and a histogram.
#[utoipa::path(get, path = "/stats", tag = "log", params(
    ("filter" = Option<String>, Query, description = "Filter string; filter keys are also accepted as separate parameters"),
    ("from" = Option<String>, Query, description = "Start of the range: RFC 3339, a date, or an age such as 24h; 7d by default"),
    ("to" = Option<String>, Query, description = "End of the range, exclusive; now by default"),
    ("tz" = Option<String>, Query, description = "Time zone for dates and times without one: UTC (the default), +02:00, or Europe/Berlin"),
    ("by" = Option<String>, Query, description = "Fields whose values to count, such as ip_address or user,action; up to 8"),
    ("top" = Option<usize>, Query, description = "Values listed per field; 20 by default and at most 1,000"),
    ("verify" = Option<bool>, Query, description = "true: the aggregator reads, verifies and counts every row itself. Otherwise the nodes count from their indexes"),
    ("bucket" = Option<String>, Query, description = "Width of the histogram's buckets, such as 15m, 1h or 1d; no histogram by default"),
    ("axis" = Option<String>, Query, description = "Time that determines the bucket: recorded (the default) or occurred. The range always refers to the time of recording"),
    ("require" = Option<String>, Query, description = "any (default), or all to get status 503 unless every expected node answers"),
), responses(
    (status = 200, description = "Exact counts; `verified` is true if the aggregator read and verified every row. While `complete` is false, every number is a lower bound. Whitespace may precede the object", body = StatsAnswer),
    (status = 400, description = "Invalid filter, range, field or bucket", body = Problem),
    (status = 429, description = "Four counts are already running", body = Problem),
    (status = 503, description = "No node answered, or require=all is not met", body = Envelope),
))]
pub(super) async fn stats(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let now = SystemClock.now();
    let mut typed = RawParameters::read(pairs_of(pairs)?)?;
    let mut query = Query::parse(std::mem::take(&mut typed.rest), now, &app.cluster.cursor_key, caller.scope())?;
    (query.format, query.order, query.limit) = (Format::Json, Order::Asc, None);
    let plan = typed.plan(&query, now)?;
    // A node's counts cannot be checked against a scope, so for a caller with a scope the aggregator itself counts the rows.
    let here = typed.verify()? || caller.scope().text().is_some();
    query.count = (!here).then(|| plan.clone());
    audit.details(describe(&query));
    audit.details(json!({ "by": plan.facets.iter().map(|facet| facet.name()).collect::<Vec<_>>() }));
    known_nodes(&app, &query)?;
    answer_stream(&app, &caller, &audit, query, Output::Stats(plan), Duration::ZERO).await
}

/// Parameters that only statistics have, as they were typed.
#[derive(Default)]
struct RawParameters {
    by: Vec<String>,
    top: Option<String>,
    bucket: Option<String>,
    axis: Option<String>,
    verify: Option<String>,
    rest: Vec<(String, String)>,
}

impl RawParameters {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, QueryError> {
        let mut typed = Self::default();
        for (name, value) in pairs {
            let slot = match name.as_str() {
                "by" => {
                    typed.by.extend(value.split(',').map(|name| name.trim().to_owned()));
                    continue;
                }
                "top" => &mut typed.top,
                "bucket" => &mut typed.bucket,
                "axis" => &mut typed.axis,
                "verify" => &mut typed.verify,
                "limit" | "order" | "format" | "cursor" => {
                    return Err(bad(
                        &name,
                        &value,
                        "statistics accept by, top, bucket, axis, verify, from, to, tz, require and a filter",
                    ));
                }
                _ => {
                    typed.rest.push((name, value));
                    continue;
                }
            };
            if slot.replace(value).is_some() {
                return Err(QueryError::Twice(name));
            }
        }
        Ok(typed)
    }

    /// Returns whether the aggregator reads and verifies the rows itself.
    fn verify(&self) -> Result<bool, QueryError> {
        match self.verify.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(bad("verify", other, "use true or false")),
        }
    }

    fn plan(&self, query: &Query, now: Timestamp) -> Result<Plan, QueryError> {
        let mut facets = Vec::new();
        for name in &self.by {
            let facet = Facet::parse(name).map_err(|error| bad("by", name, &error.to_string()))?;
            if !facets.contains(&facet) {
                facets.push(facet);
            }
        }
        if facets.len() > FACETS_MAX {
            return Err(bad(
                "by",
                &self.by.join(","),
                &format!("at most {FACETS_MAX} fields can be counted at a time"),
            ));
        }
        let top = match &self.top {
            None => TOP_DEFAULT,
            Some(text) => {
                let top = text.parse().ok().filter(|top| (1..=TOP_MAX).contains(top));
                top.ok_or_else(|| bad("top", text, &format!("use 1 to {TOP_MAX}")))?
            }
        };
        let bucket_micros = self.bucket.as_ref().map(|text| bucket(text, query, now)).transpose()?;
        let axis = match self.axis.as_deref() {
            None | Some("recorded") => Axis::Recorded,
            Some("occurred") => Axis::Occurred,
            Some(other) => return Err(bad("axis", other, "use recorded or occurred")),
        };
        Ok(Plan { facets, top, bucket_micros, axis })
    }
}

/// Parses the width of a bucket, and refuses it early if the range up to `now` has too many buckets. For rows in the
/// future, the counter enforces the limit.
fn bucket(text: &str, query: &Query, now: Timestamp) -> Result<i64, QueryError> {
    let width = parse_duration(text).filter(|width| *width >= BUCKET_MIN && width.subsec_nanos() == 0);
    let width = width.and_then(|width| i64::try_from(width.as_micros()).ok());
    let width = width
        .ok_or_else(|| bad("bucket", text, "use a whole number of seconds, at least 1s, such as 15m, 1h or 1d"))?;
    let range = query.to.min(now).micros().saturating_sub(query.from.micros());
    if range / width >= BUCKETS_MAX {
        let message = format!(
            "the range has more than {BUCKETS_MAX} buckets of this width; narrow the range or use wider buckets"
        );
        return Err(bad("bucket", text, &message));
    }
    Ok(width)
}

fn bad(parameter: &str, value: &str, allowed: &str) -> QueryError {
    QueryError::Parameter { parameter: parameter.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

//! `GET /stats`: exact counts over all nodes, with the same statement of completeness as rows. Nodes count, from their
//! indexes; with `verify=true` their rows are read and verified here, as for an export, and counted here.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Pairs, State};
use axum::response::{IntoResponse as _, Response};
use piperoll_format::order::Order;
use piperoll_format::time::{Timestamp, parse_duration};
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Permission;
use piperoll_query::stats::{Axis, BUCKETS_MAX, FACETS_MAX, Facet, Plan, TOP_DEFAULT, TOP_MAX};
use serde_json::json;

use super::auth::Caller;
use super::error::ApiError;
use super::log::{Asking, answer_stream, describe, known_nodes, with_done};
use crate::answer::stream::Output;
use crate::scan::query::{Format, Query, QueryError};
use crate::state::App;

const ACTION: &str = "audit.stats";
const BUCKET_MIN: Duration = Duration::from_secs(1);

pub(super) async fn stats(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let Ok(Pairs(pairs)) = pairs else {
        return ApiError::new(400, "bad_parameter", "the query string cannot be read").into_response();
    };
    let now = SystemClock.now();
    let parsed = (|| {
        let mut typed = Typed::read(pairs)?;
        let mut query = Query::parse(std::mem::take(&mut typed.rest), now, &app.cluster.cursor_key, caller.scope())?;
        (query.format, query.order, query.limit) = (Format::Json, Order::Asc, None);
        let plan = typed.plan(&query, now)?;
        // What a node counted cannot be held against a scope, so for a limited reader rows are counted here.
        let here = typed.verify()? || caller.scope().text().is_some();
        query.count = (!here).then(|| plan.clone());
        Ok::<_, QueryError>((query, plan))
    })();
    let (query, plan) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return with_done(ApiError::from(error), ACTION, json!({})),
    };
    let mut asked = describe(&query);
    asked["by"] = json!(plan.facets.iter().map(|facet| facet.name()).collect::<Vec<_>>());
    if let Err(error) = caller.require(Permission::View).and_then(|()| known_nodes(&app, &query)) {
        return with_done(error, ACTION, asked);
    }
    answer_stream(&app, &caller, query, Asking::now(Output::Stats(plan), ACTION, asked)).await
}

/// Parameters that only statistics have, as they were typed.
#[derive(Default)]
struct Typed {
    by: Vec<String>,
    top: Option<String>,
    bucket: Option<String>,
    axis: Option<String>,
    verify: Option<String>,
    rest: Vec<(String, String)>,
}

impl Typed {
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
                        "statistics have by, top, bucket, axis, verify, from, to, tz, require and a filter",
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

    /// Whether rows are read and verified here.
    fn verify(&self) -> Result<bool, QueryError> {
        match self.verify.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(bad("verify", other, "it is true or false")),
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
            return Err(bad("by", &self.by.join(","), &format!("up to {FACETS_MAX} fields are counted at a time")));
        }
        let top = match &self.top {
            None => TOP_DEFAULT,
            Some(text) => {
                let top = text.parse().ok().filter(|top| (1..=TOP_MAX).contains(top));
                top.ok_or_else(|| bad("top", text, &format!("it is 1 to {TOP_MAX}")))?
            }
        };
        let bucket_micros = self.bucket.as_ref().map(|text| bucket(text, query, now)).transpose()?;
        let axis = match self.axis.as_deref() {
            None | Some("recorded") => Axis::Recorded,
            Some("occurred") => Axis::Occurred,
            Some(other) => return Err(bad("axis", other, "it is recorded or occurred")),
        };
        Ok(Plan { facets, top, bucket_micros, axis })
    }
}

/// The width of a bucket, refused early when the range has too many. Rows of the future are bounded by the counter.
fn bucket(text: &str, query: &Query, now: Timestamp) -> Result<i64, QueryError> {
    let width = parse_duration(text).filter(|width| *width >= BUCKET_MIN && width.subsec_nanos() == 0);
    let width = width.and_then(|width| i64::try_from(width.as_micros()).ok());
    let width = width.ok_or_else(|| bad("bucket", text, "write whole seconds or more, such as 15m, 1h or 1d"))?;
    let range = query.to.min(now).micros().saturating_sub(query.from.micros());
    if range / width >= BUCKETS_MAX {
        let words = format!("the range has more than {BUCKETS_MAX} of them; narrow it or take wider ones");
        return Err(bad("bucket", text, &words));
    }
    Ok(width)
}

fn bad(parameter: &str, value: &str, allowed: &str) -> QueryError {
    QueryError::Parameter { parameter: parameter.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

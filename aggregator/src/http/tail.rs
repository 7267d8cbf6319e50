//! `GET /audit-log/tail`: new entries of all nodes as server-sent events, resumable by `Last-Event-ID`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as Pairs, State};
use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event as Sent, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use piperoll_client::{Category, Entry, Outcome};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::problem::Problem;
use piperoll_query::human_time;
use piperoll_query::zone::Now;
use serde_json::{Value, json};

use super::audited::AuditEntry;
use super::error::ApiError;
use super::identify::Caller;
use super::log::{known_nodes, pairs_of};
use crate::answer::tail::{Event, Events, NodeEvent, Positions, start};
use crate::scan::query::{Query, QueryError};
use crate::state::App;
use piperoll_net::fair_share::Share;

/// Interval at which a tail checks that its client is still authorized.
const RECHECK_INTERVAL: Duration = Duration::from_secs(2);
const LAST_EVENT_ID: &str = "last-event-id";

/// Follows the merged log live.
#[utoipa::path(get, path = "/audit-log/tail", tag = "log", params(
    ("filter" = Option<String>, Query, description = "Filter string; filter keys are also accepted as separate parameters"),
    ("from" = Option<String>, Query, description = "Start with entries recorded from this time on: RFC 3339, a date, or an age such as 5m; now by default"),
    ("after" = Option<String>, Query, description = "Resume after this event id: `node:generation:next seq` for every node, separated by commas. The header Last-Event-ID takes precedence"),
), responses(
    (status = 200, description = "An endless stream of server-sent events. `entry`: a row as on a page, with `late: true` if a later row was sent before it. `node`: {node_id, status, reason, since} of a node that is missing, is back, or fails verification. `heartbeat`, every five seconds: {watermark, complete, nodes}. `dropped`: the client was too slow; reconnect with the id of this event to resume. `ended`: the credential is no longer valid. The id of an event is the position after it", body = String, content_type = "text/event-stream"),
    (status = 400, description = "Invalid filter, time or position", body = Problem),
    (status = 429, description = "Too many concurrent tails", body = Problem),
))]
pub(super) async fn tail(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(audit): Extension<AuditEntry>,
    headers: HeaderMap,
    pairs: Result<Pairs<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ApiError> {
    let asked = TailRequest::read(&app, &caller, &headers, pairs_of(pairs)?, SystemClock.now())?;
    audit.details(json!({ "filter": asked.query.filter.to_string(), "from": asked.since,
        "resumed": asked.positions != Positions::default() }));
    known_nodes(&app, &asked.query)?;
    let room = app.tails.take(caller.name());
    let room = room.map_err(|full| ApiError::new(429, "busy", format!("too many concurrent live tails: {full}")))?;
    if let Some(unknown) = asked.positions.unknown(&app.cluster) {
        let message =
            format!("{unknown:?} is not in the roster; send the id of the last event received from this cluster");
        return Err(ApiError::new(400, "no_such_node", message));
    }
    let tail = start(&app.cluster, &asked.query, asked.positions, asked.since);
    let (given_up, who) = (tail.given_up, caller.name().to_owned());
    let noting = Arc::clone(&app);
    tokio::spawn(async move {
        if given_up.await.is_ok() {
            note_drop(&noting, &who).await;
        }
    });
    let checks = tokio::time::interval(RECHECK_INTERVAL);
    let reader = Reader { events: tail.events, positions: tail.positions, app, caller, checks, _room: room };
    let events = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        Some(match reader.next().await? {
            Some(event) => (Ok::<_, Infallible>(to_sent(&event, &mut reader.positions)), Some(reader)),
            None => (Ok(ended()), None),
        })
    });
    // Override the caching header that server-sent events set by default, which is weaker than that of all other responses.
    Ok(([(CACHE_CONTROL, "no-store")], Sse::new(events)).into_response())
}

/// The client of a tail.
struct Reader {
    events: Events,
    /// Position at which every node continues; events carry the changes.
    positions: Positions,
    app: Arc<App>,
    caller: Caller,
    checks: tokio::time::Interval,
    _room: Share,
}

impl Reader {
    /// Returns the next event; `Some(None)` if the caller's credential is no longer valid: signed out, revoked or
    /// expired.
    async fn next(&mut self) -> Option<Option<Event>> {
        loop {
            tokio::select! {
                event = self.events.recv() => return event.map(Some),
                // The client can resume with the id of the last event, so a shutdown does not wait for the client.
                () = self.app.stopping.cancelled() => return None,
                _ = self.checks.tick() => if !self.app.still_holds(&self.caller, SystemClock.now()) {
                    return Some(None);
                },
            }
        }
    }
}

fn ended() -> Sent {
    let message = json!({ "reason": "your session has ended, or your token is no longer valid; sign in again" });
    Sent::default().event("ended").data(message.to_string())
}

/// Query and starting position of a tail.
struct TailRequest {
    query: Query,
    positions: Positions,
    since: Timestamp,
}

impl TailRequest {
    fn read(
        app: &App,
        caller: &Caller,
        headers: &HeaderMap,
        pairs: Vec<(String, String)>,
        now: Timestamp,
    ) -> Result<Self, QueryError> {
        let (mut rest, mut since, mut after) = (Vec::new(), None, None);
        for (name, value) in pairs {
            let slot = match name.as_str() {
                "from" | "since" => &mut since,
                "after" => &mut after,
                "to" | "until" | "limit" | "order" | "format" | "cursor" | "require" => {
                    return Err(bad(&name, &value, "a tail accepts from, after and a filter"));
                }
                _ => {
                    rest.push((name, value));
                    continue;
                }
            };
            if slot.replace(value).is_some() {
                return Err(QueryError::Twice(name));
            }
        }
        let query = Query::parse(rest, now, &app.cluster.cursor_key, caller.scope())?;
        let since = match since {
            Some(text) => {
                let now = Now { at: now, zone: query.zone };
                human_time::parse(&text, now).map_err(|source| QueryError::Time { parameter: "from", source })?
            }
            None => now,
        };
        // The header that a browser sends when it reconnects is newer than the position in the URL, so it takes precedence.
        let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?").to_owned());
        let positions = match header.or(after) {
            Some(text) => Positions::parse(&text).map_err(|error| bad("after", "", &error.to_string()))?,
            None => Positions::default(),
        };
        Ok(Self { query, positions, since })
    }
}

fn bad(parameter: &str, value: &str, allowed: &str) -> QueryError {
    QueryError::Parameter { parameter: parameter.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

/// Records that a client was dropped and did not receive the entries that followed.
async fn note_drop(app: &App, who: &str) {
    let entry = Entry::new(Category::Audit, "audit.tail_dropped")
        .outcome(Outcome::Failure)
        .reason("too_slow")
        .user(who)
        .description("a live tail was ended because its client was too slow");
    if let Err(error) = app.audit.note(entry).await {
        tracing::error!(%error, "cannot record the end of a live tail");
    }
}

fn to_sent(event: &Event, positions: &mut Positions) -> Sent {
    match event {
        Event::Row { row, late, after } => {
            positions.follow(after);
            let mut text = Vec::new();
            row.to_row().write_json(&mut text);
            let text = String::from_utf8_lossy(&text);
            let text = match text.strip_prefix('{').filter(|_| *late) {
                Some(rest) => format!("{{\"late\":true,{rest}"),
                None => text.into_owned(),
            };
            Sent::default().event("entry").id(positions.to_string()).data(text)
        }
        Event::Node(node) => Sent::default().event("node").data(node_json(node).to_string()),
        Event::Heartbeat { watermark, is_current, nodes, after } => {
            positions.follow(after);
            let complete = *is_current && nodes.iter().all(|node| node.status.as_str() == "ok");
            let nodes: Vec<Value> = nodes.iter().map(node_json).collect();
            let data =
                json!({ "watermark": watermark.map(|time| time.to_text()), "complete": complete, "nodes": nodes });
            Sent::default().event("heartbeat").id(positions.to_string()).data(data.to_string())
        }
        Event::Dropped => Sent::default()
            .event("dropped")
            .id(positions.to_string())
            .data(json!({ "reason": "the client was too slow; connect again with this id to resume" }).to_string()),
    }
}

fn node_json(node: &NodeEvent) -> Value {
    json!({
        "node_id": node.node_id, "status": node.status, "reason": node.reason, "since": node.since.to_text(),
    })
}

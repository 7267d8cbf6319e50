//! Documentation of the paths, separate from the handlers to keep these readable.
#![expect(dead_code, reason = "these functions carry the documentation of the paths and are never called")]

use piperoll_protocol::access::*;
use piperoll_protocol::aggregator::*;
use piperoll_protocol::problem::Problem;

use super::super::log::VerifyRequest;
use super::super::searches::FilterWords;

#[utoipa::path(get, path = "/api/v1/audit-log", tag = "log", params(
    ("filter" = Option<String>, Query, description = "Filter string; filter keys are accepted as parameters of their own too"),
    ("from" = Option<String>, Query, description = "RFC 3339, a date, or an age such as 24h; 7d by default"),
    ("to" = Option<String>, Query, description = "Up to but not including; now by default"),
    ("tz" = Option<String>, Query, description = "Zone of dates and times without one: UTC (the default), +02:00, or Europe/Berlin"),
    ("order" = Option<String>, Query, description = "desc (default) or asc"),
    ("format" = Option<String>, Query, description = "json (a page, default), ndjson or csv (a stream; needs auditor or admin)"),
    ("limit" = Option<usize>, Query, description = "Rows; 50 by default and at most 1,000 for a page"),
    ("cursor" = Option<String>, Query, description = "next_cursor or previous_cursor of another page"),
    ("require" = Option<String>, Query, description = "any (default) or all: 503 unless every expected node answers"),
), responses(
    (status = 200, description = "Complete or partial; header audit-complete says which. Beside the envelope a page has `entries`: rows of {entry, signature, integrity, witnessed}; of an erased row `entry` is null and `erased` says {entry_seq, timestamp, reason}. A stream of NDJSON ends with a final record", content((Envelope = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
    (status = 400, description = "Bad filter, range, parameter or cursor", body = Problem),
    (status = 401, description = "No, unknown or expired credentials", body = Problem),
    (status = 403, description = "The role does not allow it", body = Problem),
    (status = 429, description = "Too many exports and checks at once", body = Problem),
    (status = 503, description = "No node answered, or require=all is not met; the same body as 200", body = Envelope),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn audit_log() {}

#[utoipa::path(get, path = "/api/v1/audit-log/tail", tag = "log", params(
    ("filter" = Option<String>, Query, description = "Filter string; filter keys are accepted as parameters of their own too"),
    ("from" = Option<String>, Query, description = "Begin with what was recorded from this time on: RFC 3339, a date, or an age such as 5m; now by default"),
    ("after" = Option<String>, Query, description = "Go on behind this event id: `node:generation:next seq` for every node, with commas. The header Last-Event-ID outranks it"),
), responses(
    (status = 200, description = "Server-sent events without end. `entry`: a row as on a page, with `late: true` when a later one came before it. `node`: {node_id, status, reason, since} of a node that is missing, is back, or does not fit. `heartbeat`, every five seconds: {watermark, complete, nodes}. `dropped`: the client was too slow; its id resumes the tail. `ended`: what was shown does not hold any more. Ids are places to go on behind", body = String, content_type = "text/event-stream"),
    (status = 400, description = "Bad filter, time or place", body = Problem),
    (status = 401, description = "No, unknown or expired credentials", body = Problem),
    (status = 429, description = "Too many tails at once", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn tail() {}

#[utoipa::path(get, path = "/api/v1/audit-log/{node}/{seq}", tag = "log", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
    ("seq" = u64, Path, description = "Row number in that node's log", example = 1),
    ("generation" = Option<String>, Query, description = "The log that the row is in, as the row itself says; the node's present log by default"),
), responses(
    (status = 200, description = "A page of one row", body = Envelope),
    (status = 404, description = "No such node or row", body = Problem),
    (status = 503, description = "The node did not answer", body = Envelope),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn entry() {}

#[utoipa::path(get, path = "/api/v1/audit-log/{node}/{seq}/proof", tag = "evidence", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
    ("seq" = u64, Path, description = "Row number in that node's log", example = 1),
    ("generation" = Option<String>, Query, description = "The log that the row is in, as the row itself says; the node's present log by default"),
), responses(
    (status = 200, description = "c2sp.org/tlog-proof@v1: inclusion under the newest cosigned checkpoint; the leaf is SHA-256(0x00 ‖ entry ‖ signature)", body = String, content_type = "text/plain"),
    (status = 403, description = "Needs auditor or admin", body = Problem),
    (status = 404, description = "No such node, or no cosigned checkpoint covers the row yet", body = Problem),
    (status = 503, description = "The node did not answer", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn proof() {}

#[utoipa::path(post, path = "/api/v1/exports", tag = "evidence", request_body = ExportRequest, responses(
    (status = 200, description = "An evidence bundle (application/x-tar), or rows as text/csv or application/x-ndjson; header audit-complete says whether every expected node is in it in full, or `pending` while a stream cannot know; audit-complete-since, on a bundle, from when on nothing is missing that retention had not let go", content((Vec<u8> = "application/x-tar"), (String = "text/csv"), (String = "application/x-ndjson"))),
    (status = 400, description = "No reason, or a bad filter or range", body = Problem),
    (status = 403, description = "Needs auditor or admin", body = Problem),
    (status = 429, description = "Too many exports and checks at once", body = Problem),
    (status = 503, description = "Expected nodes are missing, and no partial bundle was asked for", body = Envelope),
    (status = 507, description = "The state directory has no room for it", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn exports() {}

#[utoipa::path(post, path = "/api/v1/verify", tag = "log", request_body = VerifyRequest, responses(
    (status = 200, description = "Rows that fail, {\"progress\":n}, and a final record, each on a line", body = String, content_type = "application/x-ndjson"),
    (status = 503, description = "No node answered", body = Envelope),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn verify() {}

#[utoipa::path(get, path = "/api/v1/stats", tag = "log", params(
    ("filter" = Option<String>, Query, description = "Filter string; filter keys are accepted as parameters of their own too"),
    ("from" = Option<String>, Query, description = "RFC 3339, a date, or an age such as 24h; 7d by default"),
    ("to" = Option<String>, Query, description = "Up to but not including; now by default"),
    ("tz" = Option<String>, Query, description = "Zone of dates and times without one: UTC (the default), +02:00, or Europe/Berlin"),
    ("by" = Option<String>, Query, description = "Fields to count the values of, such as ip_address or user,action; up to 8"),
    ("top" = Option<usize>, Query, description = "Values listed per field; 20 by default and at most 1,000"),
    ("verify" = Option<bool>, Query, description = "true: the aggregator reads and verifies every row and counts itself. Otherwise the nodes count, from their indexes"),
    ("bucket" = Option<String>, Query, description = "Width of the histogram's buckets, such as 15m, 1h or 1d; no histogram by default"),
    ("axis" = Option<String>, Query, description = "Which time decides the bucket: recorded (the default) or occurred. The range is one of recorded times"),
    ("require" = Option<String>, Query, description = "any (default) or all: 503 unless every expected node answers"),
), responses(
    (status = 200, description = "Exact counts; `verified` says who counted. While `complete` is false every number is a lower bound. White space may come before the object", body = StatsAnswer),
    (status = 400, description = "Bad filter, range, field or bucket", body = Problem),
    (status = 429, description = "Four counts are under way", body = Problem),
    (status = 503, description = "No node answered, or require=all is not met", body = Envelope),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn stats() {}

#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", responses(
    (status = 200, description = "Every node of the roster, asked now", body = NodesAnswer),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn nodes() {}

#[utoipa::path(post, path = "/api/v1/nodes/{node}/accept", tag = "nodes", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
), request_body = AcceptRequest, responses(
    (status = 204, description = "The fork or rollback is cleared; the next look pins the log that the node presents"),
    (status = 400, description = "No reason, or no generation", body = Problem),
    (status = 403, description = "Needs admin", body = Problem),
    (status = 404, description = "No such node", body = Problem),
    (status = 409, description = "There is nothing to accept, or the node presents another generation", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn accept() {}

#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", responses(
    (status = 200, description = "Names, roles and expiry", body = Vec<TokenInfo>),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn list_tokens() {}

#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken, responses(
    (status = 201, description = "The only time the token is seen", body = CreatedToken),
    (status = 409, description = "The name is taken", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn create_token() {}

#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "tokens", params(
    ("name" = String, Path, description = "Name of the token"),
), responses(
    (status = 204, description = "Useless from now on"),
    (status = 404, description = "No such token", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn revoke_token() {}

#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process answers")))]
pub(in crate::http) fn healthz() {}

#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Requests can be recorded, so they are answered"),
    (status = 503, description = "They cannot", body = Problem),
))]
pub(in crate::http) fn readyz() {}

#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "OpenMetrics text")))]
pub(in crate::http) fn metrics() {}

#[utoipa::path(get, path = "/api/v1/audit-log/{node}/{seq}/body", tag = "evidence", params(
    ("node" = String, Path, description = "Node id", example = "mx1"),
    ("seq" = u64, Path, description = "Row number in that node's log", example = 1),
    ("generation" = Option<String>, Query, description = "The log that the row is in, as the row itself says; the node's present log by default"),
), responses(
    (status = 200, description = "The row's bytes as they are stored and signed; header piperoll-signature is their mac in hexadecimal", body = Vec<u8>, content_type = "application/octet-stream"),
    (status = 404, description = "No such node or row", body = Problem),
    (status = 410, description = "The content of the row was erased", body = Problem),
    (status = 503, description = "The node did not answer", body = Envelope),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn body() {}

#[utoipa::path(post, path = "/api/v1/bundles/verify", tag = "evidence", request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 200, description = "The verdict of `piperoll verify-bundle --json` with this aggregator's own trust file, and beside it `words` for people and `sha256` of what was sent", body = serde_json::Value),
    (status = 413, description = "More than 256 MiB, or it did not come within five minutes", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn verify_upload() {}

#[utoipa::path(post, path = "/api/v1/acknowledgements", tag = "nodes", request_body = Acknowledge, responses(
    (status = 204, description = "It is recorded that the caller has seen it; nothing else changes"),
    (status = 404, description = "No such node", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn acknowledge() {}

#[utoipa::path(post, path = "/api/v1/judgements", tag = "log", request_body = Judge, responses(
    (status = 204, description = "The judgement is an entry that points at the flagged one; that one stays as it is"),
    (status = 404, description = "No such node or entry, or not within what the caller may see", body = Problem),
    (status = 409, description = "The entry is not flagged, or not intact", body = Problem),
    (status = 503, description = "The node did not answer", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn judge() {}

#[utoipa::path(get, path = "/api/v1/filter", tag = "log", responses(
    (status = 200, description = "What a filter can be made of", body = FilterWords),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn filter_words() {}

#[utoipa::path(get, path = "/api/v1/searches", tag = "searches", responses(
    (status = 200, description = "What the caller keeps", body = Vec<SavedSearch>),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn list_searches() {}

#[utoipa::path(post, path = "/api/v1/searches", tag = "searches", request_body = SavedSearch, responses(
    (status = 204, description = "Kept; one of the same name is replaced"),
    (status = 409, description = "The caller keeps 100 already", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn keep_search() {}

#[utoipa::path(delete, path = "/api/v1/searches/{name}", tag = "searches", params(
    ("name" = String, Path, description = "Name of the search"),
), responses(
    (status = 204, description = "Removed"),
    (status = 404, description = "No such search", body = Problem),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn remove_search() {}

#[utoipa::path(get, path = "/api/v1/session", tag = "session", responses(
    (status = 200, description = "Who the caller is here", body = SessionInfo),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn who_am_i() {}

#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = SignIn, responses(
    (status = 201, description = "Signed in; the cookie is HttpOnly, Secure, SameSite=Strict", body = SessionInfo),
    (status = 413, description = "More than a token or a code", body = Problem),
), security(()))]
pub(in crate::http) fn sign_in() {}

#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses(
    (status = 204, description = "Signed out"),
    (status = 409, description = "There is no session: a token or a certificate was sent", body = Problem),
), security(("session" = [])))]
pub(in crate::http) fn sign_out() {}

#[utoipa::path(post, path = "/api/v1/session/links", tag = "session", responses(
    (status = 201, description = "An address that signs one browser in as the caller, once, within five minutes", body = SignInLink),
), security(("bearer" = []), ("certificate" = []), ("session" = [])))]
pub(in crate::http) fn link() {}

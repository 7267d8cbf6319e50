//! What a request says about itself, made to fit: whoever sends it must not be able to keep it from being recorded.

use std::net::IpAddr;

use axum::extract::OriginalUri;
use http::header::{HeaderName, USER_AGENT};
use http::request::Parts;
use piperoll_shared::log::limits::{IDENTIFIER_BYTES_MAX, LONG_TEXT_BYTES_MAX, METHOD_BYTES_MAX};

use super::Caller;
use crate::entry::{Category, Entry};

/// No browser says more about itself. What a stranger can put into an entry is room that its handler does not have.
const AGENT_BYTES_MAX: usize = 512;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn first(
    parts: &Parts,
    category: Category,
    peer: Option<IpAddr>,
    client: Option<IpAddr>,
    caller: Option<Caller>,
) -> Entry {
    let mut cut = Vec::new();
    let mut fit = |field: &'static str, text: &str, max: usize| {
        let (text, was_cut) = fitting(text, max);
        if was_cut {
            cut.push(field);
        }
        text
    };
    let header = |name: HeaderName| parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let method = fit("method", parts.method.as_str(), METHOD_BYTES_MAX);
    // As it was asked for, where a nested router has taken the front of it away. Without the query: it is where secrets stand, and what a handler thinks worth telling it tells.
    let asked = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    let path = fit("path", asked.path(), LONG_TEXT_BYTES_MAX);
    let agent = header(USER_AGENT).map(|agent| fit("user_agent", &agent, AGENT_BYTES_MAX)).unwrap_or_default();
    let request_id =
        header(REQUEST_ID).map(|id| fit("request_id", &id, IDENTIFIER_BYTES_MAX)).filter(|id| !id.is_empty());
    let mut entry = Entry::new(category, format!("http.{}", action_word(&parts.method)))
        .method(method)
        .path(path)
        .user_agent(agent)
        .request_id(request_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()));
    if let Some(client) = client {
        entry = entry.ip_address(client);
        if let Some(peer) = peer.filter(|peer| peer.to_canonical() != client) {
            entry = entry.peer_address(peer);
        }
    }
    if let Some(caller) = caller {
        entry = caller.fill(entry);
    }
    if cut.is_empty() { entry } else { entry.detail("cut", cut) }
}

/// Methods are anything; actions are not.
fn action_word(method: &http::Method) -> String {
    let word: String = method.as_str().chars().filter(char::is_ascii_alphanumeric).take(METHOD_BYTES_MAX).collect();
    if word.is_empty() { "request".to_owned() } else { word.to_ascii_lowercase() }
}

/// At most `max` bytes without control characters; and whether something is missing.
pub(super) fn fitting(text: &str, max: usize) -> (String, bool) {
    let mut fit = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let c = if c.is_control() { '\u{fffd}' } else { c };
        if fit.len() + c.len_utf8() > max {
            return (fit, true);
        }
        fit.push(c);
    }
    (fit, false)
}

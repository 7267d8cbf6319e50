//! Builds the entry of a request from its method, path and headers. Values are cut to the limits of their fields, so that a
//! client cannot prevent recording by sending values that are too long.

use std::net::IpAddr;

use axum::extract::{OriginalUri, Query};
use http::header::{HeaderName, USER_AGENT};
use http::request::Parts;
use piperoll_format::limits::{IDENTIFIER_BYTES_MAX, LONG_TEXT_BYTES_MAX, METHOD_BYTES_MAX};

use serde_json::Value;

use super::caller::{Caller, fitting};
use crate::entry::{Category, Entry};

/// Maximum length of a user agent; no browser sends a longer one. Limits how much of an entry the client can fill, because that
/// space is not available to the handler.
const AGENT_BYTES_MAX: usize = 512;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn initial(
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
    // Use the original path, because a nested router removes its prefix. Omit the query: it may hold secrets, and a handler can add the
    // parameters that matter.
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

/// Maximum number of parameter values in one entry and of bytes in each, which limits what a client can put into an entry.
const PARAMETERS_MAX: usize = 32;
const PARAMETER_BYTES_MAX: usize = 256;

/// Adds the parameters of the query that have one of these names.
pub(super) fn with_parameters(entry: Entry, parts: &Parts, names: &[String]) -> Entry {
    if names.is_empty() {
        return entry;
    }
    let asked = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    // A query that cannot be parsed into names and values has none of the parameters.
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(asked).map(|Query(pairs)| pairs).unwrap_or_default();
    let mut found = serde_json::Map::new();
    let wanted = pairs.into_iter().filter(|(name, _)| names.contains(name));
    for (name, value) in wanted.take(PARAMETERS_MAX) {
        let (text, was_cut) = fitting(&value, PARAMETER_BYTES_MAX);
        let text = Value::String(if was_cut { format!("{text}…") } else { text });
        match found.get_mut(&name) {
            None => drop(found.insert(name, text)),
            Some(Value::Array(list)) => list.push(text),
            Some(one) => *one = Value::Array(vec![one.take(), text]),
        }
    }
    if found.is_empty() { entry } else { entry.detail("parameters", found) }
}

/// Converts a method to a part of an action. Methods may contain characters that actions may not; only ASCII letters and digits
/// are kept.
fn action_word(method: &http::Method) -> String {
    let word: String = method.as_str().chars().filter(char::is_ascii_alphanumeric).take(METHOD_BYTES_MAX).collect();
    if word.is_empty() { "request".to_owned() } else { word.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_that_were_asked_for_are_recorded() {
        let names = ["page".to_owned(), "filter".to_owned()];
        let recorded = |uri: &str| {
            let (parts, ()) = http::Request::builder()
                .uri(uri)
                .body(())
                .map(http::Request::into_parts)
                .unwrap_or_else(|e| panic!("{e}"));
            let entry = with_parameters(Entry::new(Category::Data, "a.b"), &parts, &names);
            serde_json::to_value(entry).map(|entry| entry["details"]["parameters"].clone()).unwrap_or_default()
        };
        assert_eq!(
            recorded("/x?page=2&token=secret&filter=a%20b"),
            serde_json::json!({ "page": "2", "filter": "a b" })
        );
        assert_eq!(recorded("/x?page=1&page=2&page=3"), serde_json::json!({ "page": ["1", "2", "3"] }));
        assert_eq!(recorded("/x?token=secret"), Value::Null);
        assert_eq!(recorded("/x?%ff&&=&page"), serde_json::json!({ "page": "" }));
        let long = recorded(&format!("/x?page={}", "x".repeat(10_000)));
        assert_eq!(long["page"].as_str().map(str::len), Some(PARAMETER_BYTES_MAX + "…".len()));
        let many = recorded(&format!("/x?{}", "page=1&".repeat(1_000)));
        assert_eq!(many["page"].as_array().map(Vec::len), Some(PARAMETERS_MAX));
    }
}

//! Requests that another site makes a browser send are refused: the browser adds cookie and certificate by itself, so they
//! say nothing about who wanted it.

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;

use super::error::ApiError;

/// What browsers say about where a request comes from (W3C Fetch Metadata, section 2.3).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses what did not come from a page of this server, from its address bar, or from a program. A token in a header is
/// never added by a browser.
pub(super) fn check(request: &Parts) -> Result<(), ApiError> {
    if request.headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let header = |name| request.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let ours = match (header(SEC_FETCH_SITE), header(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin" || (site == "none" && request.method.is_safe()),
        // Browsers from before 2023 say only this, and only when something is to be changed.
        (None, Some(origin)) => {
            let host = request.uri.authority().map(|host| host.as_str()).or_else(|| header(HOST.as_str()));
            host.is_some_and(|host| origin.strip_prefix("https://") == Some(host))
        }
        (None, None) => true,
    };
    if ours {
        return Ok(());
    }
    Err(ApiError::new(403, "cross_site", "cross-site request refused; use Piperoll's own pages"))
}

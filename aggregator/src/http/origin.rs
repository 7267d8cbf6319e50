//! Refuses requests that another site makes a browser send. The browser adds the cookie and the certificate by itself, so they do
//! not show that the user intended the request.

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;

use super::error::ApiError;

/// Header in which browsers report where a request comes from (W3C Fetch Metadata, section 2.3).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses requests that come neither from a page of this server, nor from the browser's address bar, nor from a program. A
/// browser never adds a token to a header by itself, so a request with a token is allowed.
pub(super) fn check(request: &Parts) -> Result<(), ApiError> {
    if request.headers.contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let header = |name| request.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let ours = match (header(SEC_FETCH_SITE), header(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin" || (site == "none" && request.method.is_safe()),
        // Browsers from before 2023 send only `Origin`, and only with requests that change something.
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

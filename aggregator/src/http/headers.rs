//! Adds security headers to every response, and compresses responses.

use axum::body::HttpBody;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::Response;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

/// Policy for responses that are not pages: a browser that is tricked into displaying one runs and loads nothing.
const NO_PAGE_CSP: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// Smallest response that is worth compressing.
const COMPRESS_BYTES_MIN: u64 = 1_024;

/// Adds security headers and disables caching, because an answer describes one moment, and a cached partial answer could later be
/// mistaken for a complete one. Headers that a response sets itself, such as those of the page's own files, are kept.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, NO_PAGE_CSP),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Compresses responses of known size. Streams are not compressed, because the compressor would hold back data that the
/// client is waiting for.
pub(super) fn compression() -> CompressionLayer<KnownSize> {
    CompressionLayer::new().gzip(true).compress_when(KnownSize)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct KnownSize;

impl Predicate for KnownSize {
    fn should_compress<B: HttpBody>(&self, response: &axum::http::Response<B>) -> bool {
        response.body().size_hint().exact().is_some_and(|bytes| bytes >= COMPRESS_BYTES_MIN)
    }
}

//! Security headers of every answer, and compression.

use axum::body::HttpBody;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::Response;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

/// For everything that is not a page: a browser that is made to show it runs and loads nothing.
const NO_PAGE_CSP: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// Answers below this are not worth the work.
const COMPRESS_BYTES_MIN: u64 = 1_024;

/// An answer is about one moment; a cached partial answer would be taken for a whole one later. What says otherwise itself,
/// such as the page's own files, is left alone.
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

/// Answers of a known size are sent smaller. Streams are not: what waits in a compressor is not with its reader.
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

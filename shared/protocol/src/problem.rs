//! Error bodies: RFC 9457 problem details.

use serde::{Deserialize, Serialize};

/// Body of type `application/problem+json`: describes the problem, what it affects, and how to resolve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The HTTP status, repeated so that the body is complete without the header.
    pub status: u16,
    /// Stable machine-readable code, such as `bad_filter`.
    pub code: String,
    /// Human-readable message.
    pub detail: String,
}

impl Problem {
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), detail: detail.into() }
    }
}

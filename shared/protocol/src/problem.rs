//! Error bodies: RFC 9457 problem details.

use serde::{Deserialize, Serialize};

/// `application/problem+json`: what happened, to what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The HTTP status, repeated so that the body stands alone.
    pub status: u16,
    /// A stable word for programs, such as `bad_filter`.
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Problem {
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), detail: detail.into() }
    }
}

//! Error bodies: RFC 9457 problem details.

use serde::{Deserialize, Serialize};

/// Body of type `application/problem+json`: describes the problem, what it affects, and how to resolve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The HTTP status, repeated here so that the body can be interpreted without the status line.
    pub status: u16,
    /// Stable machine-readable code, such as `bad_filter`.
    pub code: String,
    /// Former name of `code`, if it was renamed; served for one release, for programs that know only that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_code: Option<String>,
    /// Human-readable message.
    pub detail: String,
}

/// Codes that were renamed, with their former names.
const RENAMED: [(&str, &str); 6] = [
    ("entry_invalid", "not_intact"),
    ("insufficient_storage", "no_room"),
    ("invalid_link", "link_unknown"),
    ("request_timeout", "slow_body"),
    ("scope_forbidden", "limited"),
    ("session_expired", "session_over"),
];

impl Problem {
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let former = RENAMED.iter().find(|(new, _)| *new == code);
        let former_code = former.map(|(_, former)| (*former).to_owned());
        Self { status, code: code.to_owned(), former_code, detail: detail.into() }
    }
}

//! The person or program that sent a request.

use piperoll_format::limits::{IDENTIFIER_BYTES_MAX, SHORT_WORD_BYTES_MAX};

use crate::entry::Entry;

/// Who is behind a request.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    pub user: String,
    /// `admin`, `service`, …; empty when there is nothing to say, as with all that follow.
    pub user_type: String,
    /// The real person, when somebody acts as `user`.
    pub impersonator: String,
    pub session: String,
    pub auth_method: String,
    /// The id of an API key, never the key.
    pub credential: String,
}

impl Caller {
    pub(super) fn fill(self, entry: Entry) -> Entry {
        // Some of it is what somebody typed who is nobody yet.
        let fit = |text: String, max| fitting(&text, max).0;
        entry
            .user(fit(self.user, IDENTIFIER_BYTES_MAX))
            .user_type(fit(self.user_type, SHORT_WORD_BYTES_MAX))
            .impersonator(fit(self.impersonator, IDENTIFIER_BYTES_MAX))
            .session(fit(self.session, IDENTIFIER_BYTES_MAX))
            .auth_method(fit(self.auth_method, SHORT_WORD_BYTES_MAX))
            .credential(fit(self.credential, IDENTIFIER_BYTES_MAX))
    }
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

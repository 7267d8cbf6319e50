//! The person or program that sent a request.

use piperoll_format::limits::{IDENTIFIER_BYTES_MAX, SHORT_WORD_BYTES_MAX};

use crate::entry::Entry;

/// The person or program that sent a request. An empty field is not recorded.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The account.
    pub user: String,
    /// `admin`, `service`, …
    pub user_type: String,
    /// The real person who acts as `user`.
    pub impersonator: String,
    /// The session ID.
    pub session: String,
    /// How the user authenticated, such as `password+totp`.
    pub auth_method: String,
    /// The id of an API key, never the key itself.
    pub credential: String,
}

impl Caller {
    pub(super) fn fill(self, entry: Entry) -> Entry {
        // Cut every value to its limit: some values come from clients that are not authenticated yet.
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

/// Cuts `text` to `max` bytes and replaces control characters; also returns whether something was cut.
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

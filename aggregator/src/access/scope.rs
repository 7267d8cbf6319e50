//! Scope of a client: all entries, or those that match a filter.
//!
//! A scope narrows the filter that is sent to the nodes. Every row that arrives is checked against the scope again, because a
//! node's answer alone is not trusted, and a row that fails verification could contain anything.

use std::sync::Arc;

use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_protocol::access::Role;
use piperoll_query::filter::{Filter, FilterError};

/// Maximum bytes of a scope as typed; the filter of a query is added to it.
pub const SCOPE_BYTES_MAX: usize = 1_024;

/// Reasons for refusing a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    #[error("the scope is empty; omit it to allow everything")]
    Empty,
    #[error(
        "the scope is longer than {SCOPE_BYTES_MAX} bytes after normalization (quotes added, times written in full)"
    )]
    TooLong,
    #[error("the scope: {0}")]
    Filter(#[from] FilterError),
    #[error("a scope cannot limit an admin, who can create tokens without one; use the role viewer or auditor")]
    Admin,
}

/// Origin of a scope's text. The origin decides in which version of the filter language the text is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Typed by a user now.
    Now,
    /// Read from a hand-written configuration file, which may be older than the current version of the filter language.
    InFile,
    /// Read from a file that this program wrote.
    Kept,
}

/// Entries that a caller may see; all of them if there is no limit.
#[derive(Debug, Clone, Default)]
pub struct Scope(Option<Arc<Limit>>);

#[derive(Debug)]
struct Limit {
    text: String,
    filter: Filter,
}

impl Scope {
    /// Parses a filter that a user types now. Ages in the filter are relative to `now`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, ScopeError> {
        Self::read(text, Written::Now, now)
    }

    fn read(text: &str, written: Written, now: Timestamp) -> Result<Self, ScopeError> {
        if text.len() > SCOPE_BYTES_MAX {
            return Err(ScopeError::TooLong);
        }
        let filter = match written {
            Written::Now => Filter::parse(text, now),
            Written::InFile => Filter::parse_config(text, now),
            Written::Kept => Filter::parse_stored(text, now),
        }?;
        if filter.is_empty() {
            return Err(ScopeError::Empty);
        }
        // Check the length again: the normalized text, with quotes and full times, can be longer than the typed one,
        // and it is the normalized text that is stored and parsed later.
        let text = filter.to_string();
        Filter::parse_stored(&text, now)?;
        if text.len() > SCOPE_BYTES_MAX {
            return Err(ScopeError::TooLong);
        }
        Ok(Self(Some(Arc::new(Limit { text, filter }))))
    }

    /// Returns the scope of a role: everything, or the filter in `text`.
    pub fn of(role: Role, text: Option<&str>, written: Written, now: Timestamp) -> Result<Self, ScopeError> {
        match (role, text) {
            (_, None) => Ok(Self::default()),
            (Role::Admin, Some(_)) => Err(ScopeError::Admin),
            (_, Some(text)) => Self::read(text, written, now),
        }
    }

    /// Returns the filter in the form that users type; `None` if the scope allows everything.
    pub fn describe(&self) -> Option<String> {
        self.0.as_ref().map(|limit| limit.filter.typed())
    }

    /// Returns the filter in the form for hand-written configuration files; `None` if the scope allows everything.
    pub fn for_file(&self) -> Option<String> {
        self.0.as_ref().map(|limit| limit.filter.config_text())
    }

    /// Returns the filter in its stored form, with times in full; `None` if the scope allows everything.
    pub fn text(&self) -> Option<&str> {
        self.0.as_ref().map(|limit| limit.text.as_str())
    }

    /// Whether the scope names a node. `known_nodes` does not report such a name as misspelled, because the caller did not type
    /// it.
    pub(crate) fn names(&self, node: &str) -> bool {
        self.0.as_ref().is_some_and(|limit| limit.filter.named_nodes().iter().any(|name| name.text() == node))
    }

    /// Narrows a filter to the rows that the scope allows.
    pub(crate) fn narrow(&self, filter: Filter) -> Filter {
        match &self.0 {
            Some(limit) => filter.and(limit.filter.clone()),
            None => filter,
        }
    }

    /// Whether the scope allows a row. An invalid or erased row has no content to check, so only an unlimited scope allows it.
    pub(crate) fn admits(&self, integrity: Integrity, body: &[u8]) -> bool {
        let Some(limit) = &self.0 else { return true };
        integrity == Integrity::Ok && EntryView::parse(body).is_some_and(|entry| limit.filter.matches(&entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_sound_rows_that_fit_and_nothing_else() -> Result<(), ScopeError> {
        let scope = Scope::parse("user:alice,bob -action:auth.*", Timestamp::MIN)?;
        assert_eq!(scope.text(), Some("user:alice,bob -action:auth.*"));
        let body = |user: &str, action: &str| {
            format!(
                "{{\"v\":1,\"node_id\":\"mx1\",\"generation\":\"{0}\",\"seq\":1,\"era\":0,\"salt\":\"{0}\",\"timestamp\":\"2026-04-15T08:00:00.000000Z\",\"id\":\"01963a5e-0000-7000-8000-000000000000\",\"category\":\"auth\",\"action\":\"{action}\",\"user\":\"{user}\",\"via\":\"cli\"}}",
                "0".repeat(32)
            )
        };
        let admits = |integrity, user, action| scope.admits(integrity, body(user, action).as_bytes());
        assert!(admits(Integrity::Ok, "alice", "mail.release"));
        assert!(!admits(Integrity::Ok, "carol", "mail.release"));
        assert!(!admits(Integrity::Ok, "alice", "auth.login"));
        for unsound in [Integrity::Violation, Integrity::Erased, Integrity::UnknownKey] {
            assert!(!admits(unsound, "alice", "mail.release"));
            assert!(Scope::default().admits(unsound, b""));
        }
        assert!(!scope.admits(Integrity::Ok, b"not an entry"));
        Ok(())
    }

    /// A scope such as "their own entries, or those of their customer" is not a single list of conditions; it needs `OR`.
    #[test]
    fn a_scope_may_have_alternatives() -> Result<(), ScopeError> {
        let scope = Scope::parse("actor:reseller-7 OR (entity:subscriber/* domain:example.org)", Timestamp::MIN)?;
        let kept = scope.text().map(str::to_owned);
        assert_eq!(kept.as_deref(), Some("v2: actor:reseller-7 OR (entity:subscriber/* domain:example.org)"));
        let again = Scope::of(Role::Viewer, kept.as_deref(), Written::Kept, Timestamp::MIN)?;
        assert_eq!((again.text(), again.describe()), (scope.text(), scope.describe()));
        let body = |fields: &str| format!("{{\"node_id\":\"mx1\",\"via\":\"cli\",{fields}}}");
        let admits = |fields: &str| again.admits(Integrity::Ok, body(fields).as_bytes());
        assert!(admits(r#""user":"reseller-7""#));
        assert!(admits(r#""user":"admin","entity_type":"subscriber","entity_id":"9","domain":"example.org""#));
        assert!(!admits(r#""user":"admin","entity_type":"subscriber","entity_id":"9","domain":"example.com""#));
        assert!(!admits(r#""user":"admin""#));
        Ok(())
    }

    /// A scope from before version 2 of the filter language keeps its meaning; if a file's scope is ambiguous, it is refused.
    #[test]
    fn an_earlier_scope_is_read_as_it_was_written() -> Result<(), ScopeError> {
        let kept = Scope::of(Role::Viewer, Some("user:k*"), Written::Kept, Timestamp::MIN)?;
        let body = |user: &str| format!("{{\"node_id\":\"mx1\",\"via\":\"cli\",\"user\":\"{user}\"}}");
        assert!(
            kept.admits(Integrity::Ok, body("k*").as_bytes()) && !kept.admits(Integrity::Ok, body("kim").as_bytes())
        );
        let typed = Scope::parse("user:k*", Timestamp::MIN)?;
        assert!(typed.admits(Integrity::Ok, body("kim").as_bytes()));
        let unclear = Scope::of(Role::Viewer, Some("user:k*"), Written::InFile, Timestamp::MIN).err();
        assert!(unclear.is_some_and(|error| error.to_string().contains("begin it with v2:")));
        assert!(Scope::of(Role::Viewer, Some("v1: user:k*"), Written::InFile, Timestamp::MIN).is_ok());
        // Some terms differ between the versions only in the fields that they search. Terms of an earlier scope keep searching
        // the same fields, both alone and combined with a query of version 2.
        let bulk =
            r#"{"node_id":"mx1","via":"cli","user":"carol","details":{"affected":["domain/example.org"],"counts":{}}}"#;
        for written in [Written::Kept, Written::InFile] {
            let scope = Scope::of(Role::Viewer, Some("entity:domain/example.org"), written, Timestamp::MIN)?;
            assert!(!scope.admits(Integrity::Ok, bulk.as_bytes()));
            let asked = scope.narrow(Filter::parse("user:*", Timestamp::MIN)?);
            let at_the_node = Filter::parse_stored(&asked.to_string(), Timestamp::MIN)?;
            assert_eq!(at_the_node, asked);
            assert!(EntryView::parse(bulk.as_bytes()).is_some_and(|entry| !at_the_node.matches(&entry)));
            let again = Scope::of(Role::Viewer, scope.for_file().as_deref(), Written::InFile, Timestamp::MIN)?;
            assert_eq!(again.text(), scope.text());
        }
        let wide = Scope::parse("entity:domain/example.org", Timestamp::MIN)?;
        assert!(wide.admits(Integrity::Ok, bulk.as_bytes()));
        let again = Scope::of(Role::Viewer, wide.for_file().as_deref(), Written::InFile, Timestamp::MIN)?;
        assert_eq!(again.text(), wide.text());
        Ok(())
    }

    #[test]
    fn what_limits_nothing_or_cannot_be_read_is_refused() {
        let refused = |text: &str| Scope::parse(text, Timestamp::MIN).err();
        assert_eq!(refused(" "), Some(ScopeError::Empty));
        assert_eq!(refused(&"x".repeat(SCOPE_BYTES_MAX + 1)), Some(ScopeError::TooLong));
        assert!(matches!(refused("nokey:1"), Some(ScopeError::Filter(_))));
    }
}

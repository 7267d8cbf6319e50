//! An entry as an application creates it.

use std::net::IpAddr;

use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_redact::Redactor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::changes::Changes;

/// What kind of thing happened; also what decides what becomes of an entry that cannot be recorded at once
/// ([`super::LossPolicy`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Category {
    Auth,
    User,
    Config,
    Data,
    Cluster,
    Security,
    Integration,
    Audit,
    /// A word of the application's own, such as `payment`: a lower-case ASCII letter, then lower-case letters, digits, `_` and `-`, at
    /// most 64 bytes, and not `log`. An entry with another word is refused when it is emitted. SIEM formats treat it as general
    /// activity.
    Custom(&'static str),
}

impl Serialize for Category {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Category {
    /// As it is recorded.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::User => "user",
            Self::Config => "config",
            Self::Data => "data",
            Self::Cluster => "cluster",
            Self::Security => "security",
            Self::Integration => "integration",
            Self::Audit => "audit",
            Self::Custom(word) => word,
        }
    }

    /// Those with a meaning of their own.
    pub const ALL: [Self; 8] = [
        Self::Auth,
        Self::User,
        Self::Config,
        Self::Data,
        Self::Cluster,
        Self::Security,
        Self::Integration,
        Self::Audit,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Success,
    Failure,
    Denied,
    Unknown,
}

/// One entry, to be handed to [`super::Recorder::emit`]. It has an id from the beginning, so sending it again records it once.
///
/// Limits of single fields are in docs/format.md; an entry that does not keep them is refused when it is emitted, with the
/// name of the field.
#[derive(Debug, Clone, Serialize)]
#[must_use = "an entry does nothing until it is emitted"]
pub struct Entry {
    pub(crate) id: EntryId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) occurred_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    pub(crate) category: Category,
    pub(crate) action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Changes::is_empty")]
    changes: Changes,
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redacted: Vec<String>,
    /// When it was made.
    #[serde(skip)]
    pub(crate) made: Timestamp,
}

/// Setters of the fields that are text.
macro_rules! text_fields {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, value: impl Into<String>) -> Self {
            let value = value.into();
            // An empty name is no name; the node would refuse it.
            self.$name = (!value.is_empty()).then_some(value);
            self
        })*
    };
}

impl Entry {
    /// `action` is dotted with the verb last, such as `quarantine.release`.
    pub fn new(category: Category, action: impl Into<String>) -> Self {
        Self {
            id: EntryId::from_uuid(Uuid::now_v7()),
            occurred_at: None,
            user: None,
            user_type: None,
            impersonator: None,
            session: None,
            auth_method: None,
            credential: None,
            category,
            action: action.into(),
            outcome: None,
            reason: None,
            entity_type: None,
            entity_id: None,
            entity_name: None,
            target: None,
            domain: None,
            ip_address: None,
            peer_address: None,
            user_agent: None,
            method: None,
            path: None,
            request_id: None,
            description: None,
            changes: Changes::default(),
            details: Map::new(),
            redacted: Vec::new(),
            made: SystemClock.now(),
        }
    }

    /// The idempotency key.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// An id of the application's own, such as one that stands beside its own record. Whoever makes the entry again under the
    /// same id, after a crash for example, sets [`Self::occurred_at`] as well: it is a part of what must be the same.
    pub fn with_id(mut self, id: EntryId) -> Self {
        self.id = id;
        self
    }

    text_fields! {
        user,
        /// `admin`, `service`, `api_key`, …
        user_type,
        /// The real person behind `user`.
        impersonator,
        session,
        /// Such as `password+totp`.
        auth_method,
        /// The id of an API key, never the key.
        credential,
        /// A code, when it was not a success.
        reason,
        /// The other party: recipient, domain, affected account.
        target,
        /// Tenant.
        domain,
        user_agent,
        method,
        path,
        request_id,
        /// One sentence for people.
        description,
        entity_name,
    }

    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// When it happened, if not now.
    pub fn occurred_at(mut self, time: Timestamp) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// What changed.
    pub fn entity(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.entity_type = Some(kind.into()).filter(|kind| !kind.is_empty());
        self.entity_id = Some(id.into()).filter(|id| !id.is_empty());
        self
    }

    /// Where it came from.
    pub fn ip_address(mut self, ip: IpAddr) -> Self {
        self.ip_address = Some(ip.to_canonical());
        self
    }

    /// Who connected, where that is a proxy.
    pub fn peer_address(mut self, ip: IpAddr) -> Self {
        self.peer_address = Some(ip.to_canonical());
        self
    }

    /// Changed fields; without a description of its own the entry says them in a sentence.
    pub fn changes(mut self, changes: Changes) -> Self {
        self.changes = changes;
        self
    }

    /// Anything else. A value that cannot be written as JSON is said so in its place.
    pub fn detail(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let value =
            serde_json::to_value(value).unwrap_or_else(|error| json!({ "not_serialisable": error.to_string() }));
        self.details.insert(name.into(), value);
        self
    }

    /// A value that must not be recorded, only that there was one.
    pub fn secret_detail(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.redacted.push(format!("details.{name}"));
        self.details.insert(name, json!(piperoll_redact::MASK));
        self
    }

    /// One entry for many operations: how many of them there were, and, where they are few enough to name, on what.
    pub fn bulk(mut self, succeeded: u64, failed: u64, affected: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.details.insert("counts".to_owned(), json!({ "succeeded": succeeded, "failed": failed }));
        let affected: Vec<String> = affected.into_iter().map(Into::into).collect();
        if !affected.is_empty() {
            self.details.insert("affected".to_owned(), json!(affected));
        }
        self.outcome = Some(match (succeeded, failed) {
            (_, 0) => Outcome::Success,
            (0, _) => Outcome::Failure,
            // What failed is counted; that some did not is no failure of the whole.
            _ => Outcome::Success,
        });
        self
    }

    pub(crate) fn has_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    pub(crate) fn has_reason(&self) -> bool {
        self.reason.is_some()
    }

    pub(crate) fn reason_word(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.ip_address
    }

    /// As it is sent: without its secrets, and with a sentence about its changes if it has no other.
    pub(crate) fn to_text(&self, redactor: &Redactor) -> String {
        // Texts, numbers and JSON values cannot fail to serialise.
        let text = serde_json::to_string(self).unwrap_or_default();
        let masked = redactor.entry(&text);
        if self.description.is_some() || self.changes.is_empty() {
            return masked.into_owned();
        }
        // Of what is left when the secrets are gone.
        #[derive(Deserialize)]
        struct Masked {
            changes: Changes,
        }
        let Ok(Masked { changes }) = serde_json::from_str(&masked) else { return masked.into_owned() };
        let sentence = serde_json::to_string(&changes.sentence()).unwrap_or_default();
        format!("{},\"description\":{sentence}}}", masked.strip_suffix('}').unwrap_or(&masked))
    }
}

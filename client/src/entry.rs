//! An entry as an application creates it.

use std::net::IpAddr;

use crate::clock::now;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;
use piperoll_redact::Redactor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::changes::Changes;

/// Kind of an event. It also selects the [`DeliveryPolicy`](super::DeliveryPolicy) of an entry that cannot be recorded immediately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Category {
    /// Logins, logouts, passwords, tokens.
    Auth,
    /// Accounts and their rights.
    User,
    /// Settings.
    Config,
    /// The application's own records.
    Data,
    /// Members of a cluster, and its operation.
    Cluster,
    /// Protective measures and attacks.
    Security,
    /// Exchange with other systems.
    Integration,
    /// Reading the audit log itself.
    Audit,
    /// A category of the application's own, such as `payment`: a lower-case ASCII letter, then lower-case letters, digits, `_`
    /// and `-`, at most 64 bytes, and not `log`. An entry whose category breaks these rules is refused when it is emitted. SIEM
    /// formats treat a custom category as general activity.
    Custom(&'static str),
}

impl Serialize for Category {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Category {
    /// Returns the category as it is recorded.
    #[must_use]
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

    /// The predefined categories, which detection rules and SIEM formats can interpret.
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

/// Result of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// The operation succeeded.
    Success,
    /// The operation was attempted and failed.
    Failure,
    /// The operation was not allowed.
    Denied,
    /// The result is unknown, for example because the operation has only begun.
    Unknown,
}

/// One audit entry, for [`Recorder::emit`](super::Recorder::emit). An entry gets its ID when it is created, so an entry that is
/// emitted twice is recorded once.
///
/// An entry that exceeds the limit of a field is refused when it is emitted, with an error that names the field.
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
    /// Time when the entry was created.
    #[serde(skip)]
    pub(crate) made: Timestamp,
}

/// Defines the setters of the text fields.
macro_rules! text_fields {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, value: impl Into<String>) -> Self {
            let value = value.into();
            // An empty text leaves the field unset, because the node would refuse it.
            self.$name = (!value.is_empty()).then_some(value);
            self
        })*
    };
}

impl Entry {
    /// Creates an entry. `action` is dotted, with the verb last, such as `quarantine.release`.
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
            made: now(),
        }
    }

    /// Returns the ID, which makes retries idempotent.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// Sets an ID of the application's own, such as one that is stored with the record that changed. An application that creates
    /// the entry again under the same ID, for example after a crash, must also set [`Self::occurred_at`] to the same time,
    /// because the time is part of the content.
    pub fn with_id(mut self, id: EntryId) -> Self {
        self.id = id;
        self
    }

    text_fields! {
        /// Sets the account that acted.
        user,
        /// Sets the kind of account: `admin`, `service`, `api_key`, …
        user_type,
        /// Sets the real person who acts as `user`.
        impersonator,
        /// Sets the session ID.
        session,
        /// Sets how the user authenticated, such as `password+totp`.
        auth_method,
        /// Sets the ID of an API key, never the key itself.
        credential,
        /// Sets a code that says why the operation did not succeed.
        reason,
        /// Sets the other party: recipient, domain, affected account.
        target,
        /// Sets the tenant.
        domain,
        /// Sets the client's user agent.
        user_agent,
        /// Sets the HTTP method.
        method,
        /// Sets the HTTP path.
        path,
        /// Sets the ID of the request in the application's own log.
        request_id,
        /// Sets the description, one sentence that people read.
        description,
        /// Sets the human-readable name of the object.
        entity_name,
    }

    /// Sets the result of the operation.
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Sets the time of the event, for an event that happened earlier.
    pub fn occurred_at(mut self, time: Timestamp) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// Sets the object that was acted on: its type and ID.
    pub fn entity(mut self, kind: impl Into<String>, id: impl Into<String>) -> Self {
        self.entity_type = Some(kind.into()).filter(|kind| !kind.is_empty());
        self.entity_id = Some(id.into()).filter(|id| !id.is_empty());
        self
    }

    /// Sets the client's address.
    pub fn ip_address(mut self, ip: IpAddr) -> Self {
        self.ip_address = Some(ip.to_canonical());
        self
    }

    /// Sets the address of the proxy that connected.
    pub fn peer_address(mut self, ip: IpAddr) -> Self {
        self.peer_address = Some(ip.to_canonical());
        self
    }

    /// Sets the changed fields. If the entry has no description, a sentence about the changes becomes its description.
    pub fn changes(mut self, changes: Changes) -> Self {
        self.changes = changes;
        self
    }

    /// Adds a detail. If the value cannot be written as JSON, the reason is recorded instead.
    pub fn detail(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let value =
            serde_json::to_value(value).unwrap_or_else(|error| json!({ "not_serialisable": error.to_string() }));
        self.details.insert(name.into(), value);
        self
    }

    /// Adds a detail whose value must not be recorded; only its name is recorded.
    pub fn secret_detail(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.redacted.push(format!("details.{name}"));
        self.details.insert(name, json!(piperoll_redact::MASK));
        self
    }

    /// Describes many operations in one entry: how many succeeded and failed, and the objects if they are few enough to list.
    pub fn bulk(mut self, succeeded: u64, failed: u64, affected: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.details.insert("counts".to_owned(), json!({ "succeeded": succeeded, "failed": failed }));
        let affected: Vec<String> = affected.into_iter().map(Into::into).collect();
        if !affected.is_empty() {
            self.details.insert("affected".to_owned(), json!(affected));
        }
        self.outcome = Some(match (succeeded, failed) {
            (_, 0) => Outcome::Success,
            (0, _) => Outcome::Failure,
            // Some failures do not make the whole operation a failure; the number of failures is in `counts`.
            _ => Outcome::Success,
        });
        self
    }

    #[cfg(feature = "tower")]
    pub(crate) fn has_outcome(&self) -> bool {
        self.outcome.is_some()
    }

    #[cfg(feature = "tower")]
    pub(crate) fn has_reason(&self) -> bool {
        self.reason.is_some()
    }

    #[cfg(feature = "tower")]
    pub(crate) fn reason_word(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    #[cfg(feature = "tower")]
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.ip_address
    }

    /// Serializes the entry as it is sent: with its secrets masked, and with a sentence about its changes if it has no
    /// description.
    pub(crate) fn to_text(&self, redactor: &Redactor) -> String {
        // Texts, numbers and JSON values cannot fail to serialize.
        let text = serde_json::to_string(self).unwrap_or_default();
        let masked = redactor.entry(&text);
        if self.description.is_some() || self.changes.is_empty() {
            return masked.into_owned();
        }
        // Describe the masked changes, so that the sentence contains no secret.
        #[derive(Deserialize)]
        struct Masked {
            changes: Changes,
        }
        let Ok(Masked { changes }) = serde_json::from_str(&masked) else { return masked.into_owned() };
        let sentence = serde_json::to_string(&changes.sentence()).unwrap_or_default();
        format!("{},\"description\":{sentence}}}", masked.strip_suffix('}').unwrap_or(&masked))
    }
}

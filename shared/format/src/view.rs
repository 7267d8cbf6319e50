//! Parses a body for display and filtering. Never used to verify a signature.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The fields of an entry, borrowed from its body where possible. Unknown fields are ignored, so that rows of
/// newer nodes can still be shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EntryView<'a> {
    #[serde(borrow)]
    pub node_id: Cow<'a, str>,
    #[serde(borrow)]
    pub generation: Cow<'a, str>,
    pub seq: u64,
    pub era: u32,
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub occurred_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub user_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub impersonator: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub auth_method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub credential: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub category: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub outcome: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub entity_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub entity_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub entity_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub target: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub domain: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ip_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub peer_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub user_agent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub description: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub changes: Option<&'a RawValue>,
    #[serde(borrow)]
    pub details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub flags: Option<&'a RawValue>,
    #[serde(borrow)]
    pub redacted: Option<&'a RawValue>,
    #[serde(borrow)]
    pub via: Cow<'a, str>,
}

impl<'a> EntryView<'a> {
    /// Parses a body; returns `None` if the bytes are not an entry.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The outcome, or `unknown` if the caller gave none.
    pub fn outcome_or_unknown(&self) -> &str {
        self.outcome.as_deref().unwrap_or("unknown")
    }

    /// Names of the detection rules that flagged the entry.
    pub fn flag_rules(&self) -> Vec<String> {
        #[derive(Deserialize)]
        struct Flag {
            rule: String,
        }
        self.flags
            .and_then(|raw| serde_json::from_str::<Vec<Flag>>(raw.get()).ok())
            .map(|flags| flags.into_iter().map(|f| f.rule).collect())
            .unwrap_or_default()
    }

    pub fn redacted_paths(&self) -> Vec<String> {
        self.redacted.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// Returns whether the entry represents many operations: `details.counts` is an object.
    pub fn is_bulk(&self) -> bool {
        #[derive(Deserialize)]
        struct Details<'a> {
            #[serde(borrow, default)]
            counts: Option<&'a RawValue>,
        }
        self.details
            .and_then(|raw| serde_json::from_str::<Details<'_>>(raw.get()).ok())
            .and_then(|d| d.counts)
            .is_some_and(|counts| counts.get().starts_with('{'))
    }
}

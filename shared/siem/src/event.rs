//! A row as an event, with the properties that all formats need.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::parts::json_text;
use piperoll_format::limits::FLAGS_BYTES_MAX;
use piperoll_format::row::Row;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;

/// Maximum length, as JSON, of a field that [`OmittedFields::Most`] keeps. Only malicious values exceed it, such as a name that
/// consists of quotes.
const SHORT_BYTES_MAX: usize = 514;

/// Format of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The row as in every API response: body verbatim, MAC and verification result. No other format can be verified.
    #[default]
    Native,
    /// Open Cybersecurity Schema Framework 1.8.0.
    Ocsf,
    /// Elastic Common Schema 9.
    Ecs,
    /// ArcSight Common Event Format, version 0, which has no fields for `changes` and `details`.
    Cef,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
            Self::Cef => "cef",
        }
    }
}

/// Parts that are omitted from a message, and reported as omitted, to keep it within its size limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OmittedFields {
    #[default]
    Nothing,
    /// `details` and `changes`.
    Bulk,
    /// All fields except a few short ones: who did what, when and from where, the outcome and the flags.
    Most,
}

impl OmittedFields {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Bulk => "details,changes",
            Self::Most => "all but who, what, outcome and place",
        }
    }
}

/// A row with the position it was read from.
pub struct Event<'a> {
    pub cluster: &'a str,
    pub node_id: &'a str,
    pub generation: &'a str,
    pub seq: u64,
    /// Time of recording, from the row's column. It can be trusted only if the row passes verification.
    pub recorded: Timestamp,
    pub row: &'a Row<'a>,
    pub(super) view: EntryView<'a>,
    pub(super) omit: OmittedFields,
}

impl<'a> Event<'a> {
    /// Creates an event. Parts of a row that cannot be parsed are omitted from every format; the verification result never is.
    pub fn new(place: (&'a str, &'a str, &'a str, u64), recorded: Timestamp, row: &'a Row<'a>) -> Self {
        let (cluster, node_id, generation, seq) = place;
        let mut view = EntryView::parse(&row.body).unwrap_or_default();
        if row.integrity != Integrity::Ok && row.body.contains(&b'\n') {
            // Omit these fields: an attacker who edits a row can insert a line end into them, and could thereby forge a line of
            // the output.
            (view.changes, view.details, view.flags, view.redacted) = (None, None, None, None);
        }
        Self { cluster, node_id, generation, seq, recorded, row, view, omit: OmittedFields::Nothing }
    }

    /// Returns the event with these parts omitted.
    pub fn without(mut self, omit: OmittedFields) -> Self {
        self.omit = omit;
        if omit != OmittedFields::Nothing {
            (self.view.changes, self.view.details) = (None, None);
        }
        if omit == OmittedFields::Most {
            let EntryView { id, occurred_at, user, category, action, outcome, ip_address, flags, via, .. } =
                std::mem::take(&mut self.view);
            // An edited row may exceed the limits of entries.
            let short =
                |text: Option<Cow<'a, str>>| text.filter(|text| json_text(text.as_ref()).len() <= SHORT_BYTES_MAX);
            self.view = EntryView {
                id: short(Some(id)).unwrap_or_default(),
                occurred_at: short(occurred_at),
                user: short(user),
                category: short(category),
                action: short(action),
                outcome: short(outcome),
                ip_address: short(ip_address),
                flags: flags.filter(|flags| flags.get().len() <= FLAGS_BYTES_MAX),
                via: short(Some(via)).unwrap_or_default(),
                ..EntryView::default()
            };
        }
        self
    }

    /// Returns the position as `node/seq`, the form that the command line accepts.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.node_id, self.seq)
    }

    pub(super) fn integrity(&self) -> &'static str {
        self.row.integrity.as_str()
    }

    pub(super) fn is_sound(&self) -> bool {
        matches!(self.row.integrity, Integrity::Ok | Integrity::Erased)
    }

    /// Returns the time of the event: the time stated by the caller, otherwise the time of recording.
    pub(super) fn time(&self) -> Timestamp {
        let said = self.view.occurred_at.as_deref().and_then(|time| Timestamp::parse_rfc3339(time).ok());
        said.unwrap_or(self.recorded)
    }

    /// Returns a summary in one sentence: the integrity problem if there is one, otherwise the description or the action.
    pub(super) fn sentence(&self) -> Cow<'_, str> {
        if let Some(reason) = self.row.reason.as_deref().filter(|_| self.row.integrity != Integrity::Ok) {
            return format!("row {} of {}: {reason}", self.seq, self.node_id).into();
        }
        match (&self.view.description, self.action()) {
            (Some(description), _) => Cow::Borrowed(description),
            (None, action) => Cow::Borrowed(action),
        }
    }

    pub(super) fn action(&self) -> &str {
        self.view.action.as_deref().unwrap_or("unknown")
    }

    /// Returns the last word of the action.
    pub(super) fn verb(&self) -> &str {
        self.action().rsplit('.').next().unwrap_or_default()
    }

    pub(super) fn outcome(&self) -> &str {
        self.view.outcome.as_deref().unwrap_or("unknown")
    }

    /// Returns the names of the rules that flagged the entry.
    pub(super) fn flags(&self) -> Vec<String> {
        self.view.flag_rules()
    }

    pub(super) fn flags_with_reasons(&self) -> Option<&'a RawValue> {
        self.view.flags.filter(|_| self.omit != OmittedFields::Most)
    }

    /// Returns the SHA-256 of the body, so that a message with omitted parts can be compared with the log.
    pub(super) fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.row.body))
    }

    /// Returns the id and the name of the person or account that the action affected.
    pub(super) fn person(&self) -> Option<(Option<&str>, &str)> {
        let view = &self.view;
        let (id, name, target) = (view.entity_id.as_deref(), view.entity_name.as_deref(), view.target.as_deref());
        let is_person = matches!(
            view.entity_type.as_deref(),
            None | Some("user" | "account" | "person" | "mailbox" | "customer" | "subject")
        );
        let entity = name.or(id).filter(|_| is_person).map(|name| (id, name));
        let is_about_people = view.entity_type.is_some() && is_person || view.category.as_deref() == Some("user");
        entity.or(target.map(|name| (None, name))).filter(|_| is_about_people)
    }
}

/// Milliseconds since 1970.
pub(super) fn millis(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000)
}

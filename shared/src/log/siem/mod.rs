//! An entry in the words of other systems: OCSF, ECS, CEF, and syslog around them.
//!
//! Every form is a function of one stored row and of nothing else, so golden files test it (`shared/tests/siem.rs`). None of them is what is signed:
//! only `native` keeps the body's bytes. docs/forwarding.md has the tables of fields and where they come from.

mod cef;
mod ecs;
mod ocsf;
mod syslog;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::limits::FLAGS_BYTES_MAX;
use super::row::Row;
use super::time::Timestamp;
use super::verify::Integrity;
use super::view::EntryView;

pub use syslog::{ENTERPRISE_DEFAULT, Syslog};

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The row as every answer has it: the body verbatim, its mac, the verdict. The only form that verifies.
    #[default]
    Native,
    /// Open Cybersecurity Schema Framework 1.8.0.
    Ocsf,
    /// Elastic Common Schema 9.
    Ecs,
    /// ArcSight Common Event Format, version 0. Has no place for `changes` and `details`.
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

/// What is left out, and said to be, when a message must not be longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Omit {
    #[default]
    Nothing,
    /// `details` and `changes`.
    Bulk,
    /// All but what finds and ranks the entry.
    Most,
}

impl Omit {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Bulk => "details,changes",
            Self::Most => "all but who, what, outcome and place",
        }
    }
}

/// A row with the place it was read from.
pub struct Event<'a> {
    pub cluster: &'a str,
    pub node_id: &'a str,
    pub generation: &'a str,
    pub seq: u64,
    /// When it was recorded, by the row's column; believed only as far as the row is sound.
    pub recorded: Timestamp,
    pub row: &'a Row<'a>,
    view: EntryView<'a>,
    omit: Omit,
}

impl<'a> Event<'a> {
    /// What cannot be read of a row is left out of every form; its verdict is in all of them.
    pub fn new(place: (&'a str, &'a str, &'a str, u64), recorded: Timestamp, row: &'a Row<'a>) -> Self {
        let (cluster, node_id, generation, seq) = place;
        let mut view = EntryView::parse(&row.body).unwrap_or_default();
        if row.integrity != Integrity::Ok && row.body.contains(&b'\n') {
            // Whoever edits a row can put white space into it, and with it a line of their own making.
            (view.changes, view.details, view.flags, view.redacted) = (None, None, None, None);
        }
        Self { cluster, node_id, generation, seq, recorded, row, view, omit: Omit::Nothing }
    }

    /// The same with less in it.
    pub fn without(mut self, omit: Omit) -> Self {
        self.omit = omit;
        if omit != Omit::Nothing {
            (self.view.changes, self.view.details) = (None, None);
        }
        if omit == Omit::Most {
            let EntryView { id, occurred_at, user, category, action, outcome, ip_address, flags, via, .. } =
                std::mem::take(&mut self.view);
            // The limits of entries do not bind whoever edits a row.
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

    /// As one line of text, without a line end.
    pub fn to_text(&self, format: Format) -> String {
        match format {
            Format::Native => self.native(),
            Format::Ocsf => ocsf::write(self),
            Format::Ecs => ecs::write(self),
            Format::Cef => cef::write(self),
        }
    }

    fn native(&self) -> String {
        if self.omit == Omit::Nothing {
            let mut line = Vec::with_capacity(self.row.body.len() + 160);
            self.row.write_json(&mut line);
            return String::from_utf8(line).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        }
        let view = &self.view;
        let entry = serde_json::json!({
            "node_id": self.node_id, "generation": self.generation, "seq": self.seq, "timestamp": self.recorded.to_text(),
            "id": view.id, "occurred_at": view.occurred_at, "user": view.user, "user_type": view.user_type,
            "impersonator": view.impersonator, "session": view.session, "category": view.category, "action": view.action,
            "outcome": view.outcome, "reason": view.reason, "entity_type": view.entity_type, "entity_id": view.entity_id,
            "entity_name": view.entity_name, "target": view.target, "domain": view.domain, "ip_address": view.ip_address,
            "peer_address": view.peer_address, "user_agent": view.user_agent, "method": view.method, "path": view.path,
            "request_id": view.request_id, "description": view.description, "via": view.via,
        });
        let mut parts = Parts::of(entry);
        parts.push_raw("flags", self.flags_with_reasons());
        let entry = parts.finish();
        let mut line = Parts::of(serde_json::json!({
            "signature": hex::encode(&self.row.mac), "integrity": self.integrity(), "omitted": self.omit.words(),
            "bytes": self.row.body.len(), "sha256": self.digest(), "whole_at": self.place(),
        }));
        line.push_text("entry", &entry);
        line.finish()
    }

    /// `node/seq`, as the command line takes it.
    fn place(&self) -> String {
        format!("{}/{}", self.node_id, self.seq)
    }

    fn integrity(&self) -> &'static str {
        self.row.integrity.as_str()
    }

    fn is_sound(&self) -> bool {
        matches!(self.row.integrity, Integrity::Ok | Integrity::Erased)
    }

    /// When it happened, by the caller's word if there is one.
    fn time(&self) -> Timestamp {
        let said = self.view.occurred_at.as_deref().and_then(|time| Timestamp::parse_rfc3339(time).ok());
        said.unwrap_or(self.recorded)
    }

    /// One sentence; what is missing is said instead of it.
    fn sentence(&self) -> Cow<'_, str> {
        if let Some(reason) = self.row.reason.as_deref().filter(|_| self.row.integrity != Integrity::Ok) {
            return format!("row {} of {}: {reason}", self.seq, self.node_id).into();
        }
        match (&self.view.description, self.action()) {
            (Some(description), _) => Cow::Borrowed(description),
            (None, action) => Cow::Borrowed(action),
        }
    }

    fn action(&self) -> &str {
        self.view.action.as_deref().unwrap_or("unknown")
    }

    /// The last word of the action.
    fn verb(&self) -> &str {
        self.action().rsplit('.').next().unwrap_or_default()
    }

    fn outcome(&self) -> &str {
        self.view.outcome.as_deref().unwrap_or("unknown")
    }

    /// The names of the rules that it stands out by.
    fn flags(&self) -> Vec<String> {
        self.view.flag_rules()
    }

    fn flags_with_reasons(&self) -> Option<&'a RawValue> {
        self.view.flags.filter(|_| self.omit != Omit::Most)
    }

    /// SHA-256 of the body, so that a form which lost some of it can be held against the log.
    fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.row.body))
    }

    /// The person or account that something was done to: id and name.
    fn person(&self) -> Option<(Option<&str>, &str)> {
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

/// Bytes of the smallest message that can be asked for: the shortest form of the longest entry fits.
pub const SYSLOG_BYTES_MIN: usize = 6_144;

/// What ranks and finds an entry is longer than this, as JSON, only when somebody means harm: a name of quotes alone.
const SHORT_BYTES_MAX: usize = 514;

/// A JSON object of values and of texts that are JSON already, which are kept as they are: a number in `details` may have more
/// digits than any type here.
struct Parts(String);

impl Parts {
    /// Without what is null.
    fn of(mut value: Value) -> Self {
        drop_nothings(&mut value);
        let mut text = json_text(&value);
        text.pop();
        Self(text)
    }

    fn push_text(&mut self, key: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&json_text(key));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn push_raw(&mut self, key: &str, raw: Option<&RawValue>) {
        if let Some(raw) = raw {
            self.push_text(key, raw.get());
        }
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Values and texts cannot fail to be written.
fn json_text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Drops nulls and empty texts, and objects and lists that hold nothing else.
fn drop_nothings(value: &mut Value) {
    let is_something = |value: &mut Value| {
        drop_nothings(value);
        !is_nothing(value)
    };
    match value {
        Value::Object(fields) => fields.retain(|_, value| is_something(value)),
        Value::Array(items) => items.retain_mut(is_something),
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Milliseconds since 1970.
fn millis(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000)
}

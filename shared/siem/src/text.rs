//! Writes an event as one line of text.

use super::event::{Event, Format, OmittedFields};
use super::parts::Parts;
use super::{cef, ecs, ocsf};

impl Event<'_> {
    /// Writes the event as one line of text, without a line end.
    pub fn to_text(&self, format: Format) -> String {
        match format {
            Format::Native => self.native(),
            Format::Ocsf => ocsf::write(self),
            Format::Ecs => ecs::write(self),
            Format::Cef => cef::write(self),
        }
    }

    fn native(&self) -> String {
        if self.omit == OmittedFields::Nothing {
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
            "signature": hex::encode(&self.row.mac), "integrity": self.integrity(), "omitted": self.omit.label(),
            "bytes": self.row.body.len(), "sha256": self.digest(), "whole_at": self.place(),
        }));
        line.push_text("entry", &entry);
        line.finish()
    }
}

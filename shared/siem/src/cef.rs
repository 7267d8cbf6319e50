//! Writes ArcSight Common Event Format, version 0 (Micro Focus, "Implementing ArcSight CEF", revision 25). CEF has no fields for
//! `changes`, `details` and some others. If an entry has them, they are omitted and listed in `flexString2`.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::event::{Event, OmittedFields, millis};

pub(super) fn write(event: &Event<'_>) -> String {
    let Event { view, .. } = event;
    let flags = event.flags();
    let severity = match (event.is_sound(), flags.is_empty(), event.outcome()) {
        (false, ..) => 10,
        (true, false, _) => 7,
        (true, true, "failure" | "denied") => 5,
        (true, true, _) => 3,
    };
    let mut line =
        format!("CEF:0|Piperoll|Piperoll|1|{}|{}|{severity}|", header(event.action()), header(&event.sentence()));
    let mut pairs = Pairs(&mut line, true);
    pairs.put("rt", &millis(event.time()).to_string());
    pairs.labelled("deviceCustomDate1", "recorded", Some(&millis(event.recorded).to_string()));
    pairs.maybe("externalId", Some(view.id.as_ref()).filter(|id| !id.is_empty()));
    pairs.labelled("cn1", "seq", Some(&event.seq.to_string()));
    pairs.put("deviceExternalId", event.node_id);
    pairs.put("dvchost", event.node_id);
    pairs.maybe("cat", view.category.as_deref());
    pairs.put("act", event.action());
    pairs.put("outcome", event.outcome());
    pairs.maybe("suser", view.user.as_deref());
    pairs.maybe("spriv", view.user_type.as_deref());
    match view.ip_address.as_deref().map(|text| (text, text.parse::<IpAddr>())) {
        Some((text, Ok(IpAddr::V6(_)))) => pairs.labelled("c6a2", "Source IPv6 Address", Some(text)),
        Some((text, Ok(IpAddr::V4(_)))) => pairs.put("src", text),
        // Some entries name a service in `ip_address`.
        Some((text, Err(_))) => pairs.put("shost", text),
        None => {}
    }
    pairs.maybe("sourceTranslatedAddress", view.peer_address.as_deref());
    pairs.labelled("cs1", "impersonator", view.impersonator.as_deref());
    pairs.labelled("cs2", "reason", view.reason.as_deref());
    pairs.labelled("cs3", "entityType", view.entity_type.as_deref());
    pairs.labelled("cs4", "entityId", view.entity_id.as_deref());
    pairs.labelled("cs5", "entityName", view.entity_name.as_deref());
    pairs.labelled("cs6", "domain", view.domain.as_deref());
    pairs.maybe("duser", view.target.as_deref());
    pairs.maybe("requestMethod", view.method.as_deref());
    pairs.maybe("request", view.path.as_deref());
    pairs.maybe("requestClientApplication", view.user_agent.as_deref());
    pairs.maybe("sourceServiceName", Some(view.via.as_ref()).filter(|via| !via.is_empty()));
    pairs.maybe("msg", view.description.as_deref());
    pairs.labelled("flexString1", "flags", Some(flags.join(",").as_str()).filter(|flags| !flags.is_empty()));
    let missing: Vec<&str> = [
        ("session", view.session.is_some()),
        ("auth_method", view.auth_method.is_some()),
        ("credential", view.credential.is_some()),
        ("request_id", view.request_id.is_some()),
        ("changes", view.changes.is_some()),
        ("details", view.details.is_some()),
        ("redacted", view.redacted.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| is_there.then_some(name))
    .collect();
    let mut left_out = missing.join(",");
    if event.omit != OmittedFields::Nothing {
        left_out = format!("{}; whole at {}", event.omit.label(), event.place());
    }
    let integrity = match left_out.as_str() {
        "" => event.integrity().to_owned(),
        left_out => format!("{}; omitted: {left_out}", event.integrity()),
    };
    pairs.labelled("flexString2", "integrity", Some(&integrity));
    line
}

struct Pairs<'a>(&'a mut String, bool);

impl Pairs<'_> {
    fn put(&mut self, key: &str, value: &str) {
        let space = if std::mem::take(&mut self.1) { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{space}{key}={}", extension(value));
    }

    fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn labelled(&mut self, key: &str, label: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.put(key, value);
            self.put(&format!("{key}Label"), label);
        }
    }
}

/// Escapes `|` and `\` in a header field and replaces line ends with spaces.
fn header(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Escapes `=` and `\` in an extension value and writes line ends as `\n` and `\r`.
fn extension(text: &str) -> String {
    text.replace('\\', "\\\\").replace('=', "\\=").replace('\r', "\\r").replace('\n', "\\n")
}

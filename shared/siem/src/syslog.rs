//! Writes RFC 5424 messages, and frames them on a stream by octet counting (RFC 6587 section 3.4.1, RFC 5425 section 4.3).

use std::fmt::Write as _;

use super::event::{Event, Format, OmittedFields};
use piperoll_format::limits::SHORT_WORD_BYTES_MAX;
use piperoll_format::verify::Integrity;

/// Private enterprise number reserved for examples (RFC 5612), used until an organization configures its own.
pub const ENTERPRISE_DEFAULT: u32 = 32_473;
/// Minimum of the configurable size limit of a message, in bytes. The shortest form of the longest entry does not exceed it.
pub const SYSLOG_BYTES_MIN: usize = 6_144;
/// Facility "log audit" (RFC 5424 section 6.2.1).
const FACILITY: u8 = 13;
/// Maximum length of `MSGID`, which, like `APP-NAME`, must be ASCII (RFC 5424 section 6).
const MSGID_BYTES_MAX: usize = 32;

/// Settings of syslog messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syslog {
    pub format: Format,
    /// Private enterprise number, which follows the `@` in the name of the structured data.
    pub enterprise: u32,
    /// Maximum size of one message in bytes, without the length prefix.
    pub size_max: usize,
}

impl Syslog {
    /// Writes one message with its length prefix, and returns the parts that were omitted. `synced` tells whether the node's
    /// clock is synchronized; `None` if this is unknown.
    pub fn frame(&self, event: Event<'_>, synced: Option<bool>) -> (Vec<u8>, OmittedFields) {
        let mut event = event;
        let mut message = self.message(&event, synced);
        for omit in [OmittedFields::Bulk, OmittedFields::Most] {
            if message.len() <= self.size_max {
                break;
            }
            event = event.without(omit);
            message = self.message(&event, synced);
        }
        let mut frame = format!("{} ", message.len()).into_bytes();
        frame.extend_from_slice(message.as_bytes());
        (frame, event.omit)
    }

    fn message(&self, event: &Event<'_>, synced: Option<bool>) -> String {
        let severity = match (event.is_sound(), event.outcome()) {
            (false, _) => 2,
            (true, "failure" | "denied") => 4,
            (true, _) => 6,
        };
        let mut message = String::with_capacity(1_024);
        // Writing to a String cannot fail.
        let _ = write!(
            message,
            "<{}>1 {} {} piperoll - {} ",
            u32::from(FACILITY) * 8 + severity,
            event.time(),
            printable(event.node_id, 255),
            printable(event.action(), MSGID_BYTES_MAX),
        );
        self.structured_data(&mut message, event);
        message.push_str("[timeQuality tzKnown=\"1\"");
        if let Some(synced) = synced {
            let _ = write!(message, " isSynced=\"{}\"", u8::from(synced));
        }
        // A byte order mark marks the text as UTF-8 (section 6.4).
        message.push_str("] \u{feff}");
        message.push_str(&event.to_text(self.format));
        message
    }

    fn structured_data(&self, message: &mut String, event: &Event<'_>) {
        let view = &event.view;
        let _ = write!(message, "[piperoll@{}", self.enterprise);
        let mut put = |name: &str, value: &str| {
            let _ = write!(message, " {name}=\"{}\"", quoted(value));
        };
        put("cluster", event.cluster);
        put("node", event.node_id);
        put("generation", event.generation);
        put("seq", &event.seq.to_string());
        put("recorded", &event.recorded.to_text());
        for (name, value) in [
            ("id", Some(view.id.as_ref()).filter(|id| !id.is_empty())),
            ("category", view.category.as_deref()),
            ("action", view.action.as_deref()),
            ("outcome", view.outcome.as_deref()),
            ("reason", view.reason.as_deref().filter(|reason| reason.len() <= SHORT_WORD_BYTES_MAX)),
            ("user", view.user.as_deref()),
            ("impersonator", view.impersonator.as_deref()),
            ("ip", view.ip_address.as_deref()),
        ] {
            if let Some(value) = value {
                put(name, value);
            }
        }
        let flags = event.flags().join(",");
        if !flags.is_empty() {
            put("flags", &flags);
        }
        if event.row.integrity != Integrity::Ok {
            put("integrity", event.integrity());
        }
        if event.omit != OmittedFields::Nothing {
            put("omitted", event.omit.label());
            put("bytes", &event.row.body.len().to_string());
            put("sha256", &event.digest());
        }
        message.push(']');
    }
}

/// Escapes quotes, backslashes and closing brackets (section 6.3.3).
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]")
}

/// Converts a text to printable ASCII without spaces, as header fields require. Values that this truncates are repeated in full
/// in the structured data.
fn printable(text: &str, max: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(max).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

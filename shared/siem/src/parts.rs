//! Builds a JSON object from values and from JSON text.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// JSON object under construction. Text that is already JSON is kept verbatim, because a number in `details` may have more
/// digits than any numeric type can represent.
pub(super) struct Parts(String);

impl Parts {
    /// Creates an object with the members of `value`, except empty ones.
    pub(super) fn of(mut value: Value) -> Self {
        drop_nothings(&mut value);
        let mut text = json_text(&value);
        text.pop();
        Self(text)
    }

    pub(super) fn push_text(&mut self, key: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&json_text(key));
        self.0.push(':');
        self.0.push_str(json);
    }

    pub(super) fn push_raw(&mut self, key: &str, raw: Option<&RawValue>) {
        if let Some(raw) = raw {
            self.push_text(key, raw.get());
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Serializes as JSON, which cannot fail for values and texts.
pub(super) fn json_text<T: Serialize + ?Sized>(value: &T) -> String {
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

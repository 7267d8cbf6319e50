//! JSON objects that preserve the order of their keys and the text of their values, so that numbers keep every digit.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of an object, in order.
#[derive(Debug, Clone)]
pub struct Pairs(pub Vec<(String, Box<RawValue>)>);

impl Pairs {
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the value of the first member with this name.
    pub fn member(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Replaces the value that a path of names leads to; does nothing if the path leads nowhere.
    pub fn replace(&mut self, path: &[&str], value: Box<RawValue>) {
        let Some((first, rest)) = path.split_first() else { return };
        let Some(at) = self.0.iter().position(|(key, _)| key == first) else { return };
        if rest.is_empty() {
            self.0[at].1 = value;
        } else if let Some(mut inner) = Self::parse(self.0[at].1.get()) {
            inner.replace(rest, value);
            if let Some(raw) = inner.to_raw() {
                self.0[at].1 = raw;
            }
        }
    }

    /// Removes the value that a path of names leads to, and every object that becomes empty as a result.
    pub fn remove(&mut self, pointer: &[String]) {
        let Some((first, rest)) = pointer.split_first() else { return };
        let Some(at) = self.0.iter().position(|(key, _)| key == first) else { return };
        if rest.is_empty() {
            self.0.remove(at);
        } else if let Some(mut inner) = Self::parse(self.0[at].1.get()) {
            inner.remove(rest);
            match inner.to_raw() {
                Some(raw) if !inner.0.is_empty() => self.0[at].1 = raw,
                _ => {
                    self.0.remove(at);
                }
            }
        }
    }

    pub fn to_text(&self) -> String {
        let members: Vec<String> = self
            .0
            .iter()
            .map(|(key, value)| format!("{}:{}", serde_json::to_string(key).unwrap_or_default(), value.get()))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    pub fn to_raw(&self) -> Option<Box<RawValue>> {
        RawValue::from_string(self.to_text()).ok()
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

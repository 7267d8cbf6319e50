//! A value that can be compared but is never recorded.

use std::fmt;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use piperoll_redact::{MARK, MASK};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use sha2::Sha256;

/// Key that only this process knows. Within the process, marks of secrets can be compared; outside it, they do not help to guess
/// a secret.
static COMPARING: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the operating system provides random bytes");
    key
});

/// A value whose type marks it as a secret: [`Changes`](super::Changes) records the fact that it changed, but not the value, and
/// the value is masked everywhere else in an entry.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Serializes as a mark that differs if the values differ. Masking replaces the mark with `***`.
impl<T: Serialize> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_vec(&self.0).map_err(serde::ser::Error::custom)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&*COMPARING).map_err(serde::ser::Error::custom)?;
        mac.update(&text);
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(MARK, &hex::encode(mac.finalize().into_bytes()))?;
        map.end()
    }
}

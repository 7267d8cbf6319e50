//! The entry mac: `HMAC-SHA256(K, body)` with a key derived for one node, generation and epoch
//! (docs/format.md, "Seal").

use std::collections::HashMap;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::digest::HmacKey;
use crate::ids::{ClusterName, Generation, NodeId};
use crate::limits::MAC_BYTES;

/// First part of the HKDF info; separates this key from every other use of the secret.
const KEY_LABEL: &[u8] = b"piperoll entry mac v1";

/// The random secret of one epoch of one node. Never printed, wiped when dropped.
#[derive(Clone)]
pub struct EpochSecret(Zeroizing<[u8; 32]>);

/// Error for a secret file that does not contain a valid secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a secret must be 64 hexadecimal digits on one line")]
pub struct SecretError;

impl EpochSecret {
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads the text form that a secret file contains.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| SecretError)?;
        Ok(Self(bytes))
    }

    /// The text form for a secret file.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }
}

/// The log that a mac belongs to: `cluster/node/generation`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub cluster: ClusterName,
    pub node_id: NodeId,
    pub generation: Generation,
}

impl Origin {
    pub fn to_text(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.node_id, self.generation)
    }
}

/// A prepared key that seals and checks bodies of one origin and epoch. Because the key is prepared in advance,
/// a mac costs only one hash of the body.
#[derive(Clone)]
pub struct MacKey(HmacKey);

impl MacKey {
    /// Derives `K = HKDF-SHA256(secret, no salt, "piperoll entry mac v1" ‖ origin ‖ epoch as 4 bytes big-endian)`.
    pub fn derive(secret: &EpochSecret, origin: &Origin, epoch: u32) -> Self {
        let mut info = KEY_LABEL.to_vec();
        info.extend_from_slice(origin.to_text().as_bytes());
        info.extend_from_slice(&epoch.to_be_bytes());
        let mut key = Zeroizing::new([0u8; 32]);
        let expanded = Hkdf::<Sha256>::new(None, secret.0.as_slice()).expand(&info, key.as_mut_slice());
        debug_assert!(expanded.is_ok(), "32 bytes are within HKDF-SHA256's 8,160");
        Self(HmacKey::new(&key))
    }

    pub fn mac(&self, body: &[u8]) -> [u8; MAC_BYTES] {
        self.0.sign(body)
    }

    /// Checks a mac in constant time. A NULL or short mac never matches.
    pub fn verify(&self, body: &[u8], mac: &[u8]) -> bool {
        self.0.verify(body, mac)
    }
}

/// The secrets of one node's epochs, and the keys derived from them so far.
#[derive(Clone)]
pub struct KeyRing {
    cluster: ClusterName,
    node_id: NodeId,
    secrets: HashMap<u32, EpochSecret>,
    keys: HashMap<(Generation, u32), MacKey>,
}

impl KeyRing {
    pub fn new(cluster: ClusterName, node_id: NodeId, secrets: impl IntoIterator<Item = (u32, EpochSecret)>) -> Self {
        Self { cluster, node_id, secrets: secrets.into_iter().collect(), keys: HashMap::new() }
    }

    /// Returns the key of an epoch, or `None` if this ring does not hold that epoch's secret.
    pub fn key(&mut self, generation: Generation, epoch: u32) -> Option<&MacKey> {
        let secret = self.secrets.get(&epoch)?;
        Some(self.keys.entry((generation, epoch)).or_insert_with(|| {
            let origin = Origin { cluster: self.cluster.clone(), node_id: self.node_id.clone(), generation };
            MacKey::derive(secret, &origin, epoch)
        }))
    }

    /// Returns the newest epoch in this ring, whose key seals new entries.
    pub fn newest_epoch(&self) -> Option<u32> {
        self.secrets.keys().copied().max()
    }

    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(secret: u8) -> KeyRing {
        let cluster = "example".parse().expect("a cluster");
        let node = "mx1".parse().expect("a node");
        KeyRing::new(cluster, node, [(0, EpochSecret::from_bytes([secret; 32]))])
    }

    #[test]
    fn key_depends_on_secret_generation_and_epoch() {
        let (one, two) = (Generation::from_bytes([1; 16]), Generation::from_bytes([2; 16]));
        let mac = ring(1).key(one, 0).expect("a key").mac(b"body");
        assert!(ring(1).key(one, 0).expect("a key").verify(b"body", &mac));
        assert!(!ring(1).key(two, 0).expect("a key").verify(b"body", &mac));
        assert!(!ring(2).key(one, 0).expect("a key").verify(b"body", &mac));
        assert!(!ring(1).key(one, 0).expect("a key").verify(b"body", &mac[..31]));
        assert!(!ring(1).key(one, 0).expect("a key").verify(b"body", b""));
        assert!(ring(1).key(one, 1).is_none());
    }
}

//! SHA-256 and HMAC-SHA256, which run for every entry.
//!
//! The binary chooses the implementation: portable Rust unless `main` [`install`]s another [`Provider`]. Daemons contain AWS-LC
//! for TLS anyway, and AWS-LC takes about half the time on processors without SHA instructions. The verifier does not contain
//! AWS-LC and installs no provider, so its tests run the code that auditors get, whatever else is built in the same workspace.

use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

/// Implementation of SHA-256 and HMAC-SHA256. All implementations return the same bytes; they differ only in speed.
pub trait Provider: Send + Sync {
    /// SHA-256 (FIPS 180-4) of the concatenation of `parts`.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];
    /// Prepares a key, so that computing a MAC costs only one hash of the message.
    fn hmac_key(&self, key: &[u8; 32]) -> Arc<dyn KeyedHmac>;
}

/// A prepared key of HMAC-SHA256 (RFC 2104).
pub trait KeyedHmac: Send + Sync {
    /// Computes the MAC of `message`.
    fn sign(&self, message: &[u8]) -> [u8; 32];
    /// Checks the MAC of `message` in constant time; a MAC of another length is invalid.
    fn verify(&self, message: &[u8], mac: &[u8]) -> bool;
}

static INSTALLED: OnceLock<&'static dyn Provider> = OnceLock::new();

/// Makes `provider` the implementation for this process; only the first call has an effect. Existing keys keep the provider that
/// created them.
pub fn install(provider: &'static dyn Provider) {
    let _ = INSTALLED.set(provider);
}

fn provider() -> &'static dyn Provider {
    INSTALLED.get().copied().unwrap_or(&Portable)
}

/// SHA-256 of the concatenation of `parts`, computed by the installed provider.
pub fn sha256<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
    provider().sha256(&parts)
}

/// A prepared key of the installed provider.
#[derive(Clone)]
pub(crate) struct HmacKey(Arc<dyn KeyedHmac>);

impl HmacKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(provider().hmac_key(key))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.sign(message)
    }

    pub(crate) fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        self.0.verify(message, mac)
    }
}

/// The default: the `sha2` and `hmac` crates, which use SHA instructions where the processor has them.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

struct PortableKey(Hmac<Sha256>);

impl Provider for Portable {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
    }

    fn hmac_key(&self, key: &[u8; 32]) -> Arc<dyn KeyedHmac> {
        // HMAC pads a key with zeros to its block size of 64 bytes (RFC 2104 section 2). A block of which only the first 32 bytes
        // are filled therefore gives the same MAC and, unlike a key of variable length, cannot be rejected.
        let mut block = zeroize::Zeroizing::new([0u8; 64]);
        block[..32].copy_from_slice(key);
        Arc::new(PortableKey(<Hmac<Sha256> as KeyInit>::new((&*block).into())))
    }
}

impl KeyedHmac for PortableKey {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(message).finalize().into_bytes().into()
    }

    fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        self.0.clone().chain_update(message).verify_slice(mac).is_ok()
    }
}

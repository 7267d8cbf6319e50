//! Selects the cryptography library of the process, the same one for TLS and for hashing.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use piperoll_format::digest::{KeyedHmac, Provider};

use crate::tls::provider;

/// SHA-256 and HMAC-SHA256 of AWS-LC.
#[derive(Debug, Clone, Copy)]
pub struct AwsLc;

struct AwsLcKey(hmac::Key);

/// Installs AWS-LC as the cryptography provider of this process, for TLS and for hashing. `main` calls this function before any
/// code connects or hashes; without it, hashing uses the portable Rust implementation.
pub fn install() {
    let _ = rustls::crypto::CryptoProvider::install_default(Arc::unwrap_or_clone(provider()));
    piperoll_format::digest::install(&AwsLc);
}

impl Provider for AwsLc {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    fn hmac_key(&self, key: &[u8; 32]) -> Arc<dyn KeyedHmac> {
        Arc::new(AwsLcKey(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }
}

impl KeyedHmac for AwsLcKey {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        out
    }

    fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.0, message, mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use piperoll_format::digest::Portable;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_implementations_agree(a in prop::collection::vec(any::<u8>(), 0..300), b: [u8; 32], key: [u8; 32]) {
            prop_assert_eq!(AwsLc.sha256(&[&[1], &a, &b]), Portable.sha256(&[&[1], &a, &b]));
            let (native, portable) = (AwsLc.hmac_key(&key), Portable.hmac_key(&key));
            let mac = native.sign(&a);
            prop_assert_eq!(mac, portable.sign(&a));
            for implementation in [native, portable] {
                prop_assert!(implementation.verify(&a, &mac));
                prop_assert!(!implementation.verify(&a, &mac[..31]));
            }
            prop_assert!(b == key || !AwsLc.hmac_key(&b).verify(&a, &mac));
        }
    }
}

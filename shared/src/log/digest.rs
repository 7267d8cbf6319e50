//! SHA-256 and HMAC-SHA256, which run for every row, by the faster of two implementations: a build with TLS has AWS-LC in
//! it anyway, which needs about half the time of portable Rust on processors without SHA instructions. The verifier, which
//! carries no such library, uses portable Rust. A test holds the two against each other.

#[cfg(feature = "net")]
pub(super) use native::{HmacKey, sha256};
#[cfg(not(feature = "net"))]
pub(super) use portable::{HmacKey, sha256};

#[cfg(feature = "net")]
mod native {
    use aws_lc_rs::{digest, hmac};

    /// Of the parts, one after the other.
    pub(in crate::log) fn sha256<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// A key whose padded form is hashed already.
    #[derive(Clone)]
    pub(in crate::log) struct HmacKey(hmac::Key);

    impl HmacKey {
        pub(in crate::log) fn new(key: &[u8; 32]) -> Self {
            Self(hmac::Key::new(hmac::HMAC_SHA256, key))
        }

        pub(in crate::log) fn sign(&self, message: &[u8]) -> [u8; 32] {
            let mut out = [0; 32];
            out.copy_from_slice(hmac::sign(&self.0, message).as_ref());
            out
        }

        /// In constant time.
        pub(in crate::log) fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
            hmac::verify(&self.0, message, mac).is_ok()
        }
    }
}

#[cfg(any(test, not(feature = "net")))]
mod portable {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest as _, Sha256};

    pub(in crate::log) fn sha256<const N: usize>(parts: [&[u8]; N]) -> [u8; 32] {
        parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
    }

    #[derive(Clone)]
    pub(in crate::log) struct HmacKey(Hmac<Sha256>);

    impl HmacKey {
        pub(in crate::log) fn new(key: &[u8; 32]) -> Self {
            // HMAC pads a key with zeros to its block of 64 bytes (RFC 2104 section 2), so a block of which only the
            // first 32 bytes are filled gives the same mac, without a length that could be refused.
            let mut block = zeroize::Zeroizing::new([0u8; 64]);
            block[..32].copy_from_slice(key);
            Self(<Hmac<Sha256> as KeyInit>::new((&*block).into()))
        }

        pub(in crate::log) fn sign(&self, message: &[u8]) -> [u8; 32] {
            self.0.clone().chain_update(message).finalize().into_bytes().into()
        }

        pub(in crate::log) fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
            self.0.clone().chain_update(message).verify_slice(mac).is_ok()
        }
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use proptest::prelude::*;

    use super::{native, portable};

    proptest! {
        #[test]
        fn both_implementations_agree(a in prop::collection::vec(any::<u8>(), 0..300), b: [u8; 32], key: [u8; 32]) {
            prop_assert_eq!(native::sha256([&[1], &a, &b]), portable::sha256([&[1], &a, &b]));
            let mac = native::HmacKey::new(&key).sign(&a);
            prop_assert_eq!(mac, portable::HmacKey::new(&key).sign(&a));
            for keyed in [native::HmacKey::new(&key).verify(&a, &mac), portable::HmacKey::new(&key).verify(&a, &mac)] {
                prop_assert!(keyed);
            }
            prop_assert!(!native::HmacKey::new(&key).verify(&a, &mac[..31]));
            prop_assert!(!native::HmacKey::new(&b).verify(&a, &mac) || b == key);
        }
    }
}

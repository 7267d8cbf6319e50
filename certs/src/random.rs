//! Creates secrets and signing keys from the operating system's random bytes.

use std::path::Path;

use piperoll_format::mac::EpochSecret;
use piperoll_format::merkle::encode_hash;
use piperoll_format::note::SigningSeed;

use super::error::{CertsError, Result};
use super::files::write_new_private;

pub(crate) fn random_secret() -> Result<EpochSecret> {
    Ok(EpochSecret::from_bytes(random_bytes()?))
}

fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(CertsError::Random)?;
    Ok(bytes)
}

/// Creates a key that signs checkpoints or cosignatures. The private key is written only to `path`, in the machine's folder.
/// Returns the public key in base64.
pub(crate) fn make_signing_key(path: &Path) -> Result<String> {
    let seed = SigningSeed::from_bytes(random_bytes()?);
    write_new_private(path, seed.to_hex().as_bytes())?;
    Ok(encode_hash(&seed.public_bytes()))
}

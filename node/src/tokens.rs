//! Tokens for recording over HTTPS on loopback: 256 random bits, shown once; only their hashes are stored.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use piperoll_format::time::Timestamp;
use piperoll_net::atomic_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Prefix by which a token is recognized, and masked, if it turns up where it should not.
const PREFIX: &str = "prl_";
const NAME_BYTES_MAX: usize = 64;
const TOKENS_MAX: usize = 1_000;

/// Why a token could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
    #[error("a token named {0:?} exists already; revoke it first or choose another name")]
    Exists(String),
    #[error("no token named {0:?}")]
    NotFound(String),
    #[error("a token's name has 1 to {NAME_BYTES_MAX} of letters, digits, '-', '.', '_'")]
    Name,
    #[error("there are {TOKENS_MAX} tokens, which is the limit; revoke one first")]
    Full,
}

/// Token metadata; the token itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingToken {
    /// Written to `via` of entries that are recorded with it.
    pub name: String,
    sha256: String,
    pub created: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    token: Vec<RecordingToken>,
}

/// The token file, read again whenever it changed, so that the command and the daemon agree.
pub struct RecordingTokens {
    path: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// Change time, length and inode of the file when it was read.
    stamp: Option<(SystemTime, u64, u64)>,
    tokens: Vec<RecordingToken>,
}

impl RecordingTokens {
    /// Uses the token file at `path`; a missing file holds no token.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), cache: Mutex::default() }
    }

    /// Returns the name of a token.
    pub fn find(&self, token: &str) -> Result<Option<String>, TokenError> {
        let digest = hex::encode(Sha256::digest(token.as_bytes()));
        let found = self.list()?.into_iter().find(|known| known.sha256.as_bytes().ct_eq(digest.as_bytes()).into());
        Ok(found.map(|known| known.name))
    }

    pub fn list(&self) -> Result<Vec<RecordingToken>, TokenError> {
        let io = |source| self.io(source);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let meta = match std::fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io(e)),
        };
        let stamp = (meta.modified().map_err(io)?, meta.len(), meta.ino());
        if cache.stamp != Some(stamp) {
            let text = std::fs::read_to_string(&self.path).map_err(io)?;
            let content: Content = toml::from_str(&text)
                .map_err(|e| TokenError::Content { path: self.path.clone(), problem: e.message().to_owned() })?;
            *cache = Cache { stamp: Some(stamp), tokens: content.token };
        }
        Ok(cache.tokens.clone())
    }

    /// Creates a token; the returned text is shown once and not stored.
    pub fn create(&self, name: &str, now: Timestamp) -> Result<String, TokenError> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !is_name {
            return Err(TokenError::Name);
        }
        let _lock = self.lock()?;
        let mut tokens = self.list()?;
        if tokens.iter().any(|known| known.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| self.io(std::io::Error::other(e.to_string())))?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let sha256 = hex::encode(Sha256::digest(token.as_bytes()));
        tokens.push(RecordingToken { name: name.to_owned(), sha256, created: now });
        self.write(tokens)?;
        Ok(token)
    }

    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let _lock = self.lock()?;
        let mut tokens = self.list()?;
        let before = tokens.len();
        tokens.retain(|known| known.name != name);
        if tokens.len() == before {
            return Err(TokenError::NotFound(name.to_owned()));
        }
        self.write(tokens)
    }

    fn write(&self, token: Vec<RecordingToken>) -> Result<(), TokenError> {
        let text = toml::to_string(&Content { token })
            .map_err(|e| TokenError::Content { path: self.path.clone(), problem: e.to_string() })?;
        atomic_file::replace(&self.path, text.as_bytes()).map_err(|source| self.io(source))
    }

    /// Locks the file while it is read, changed and written, so that a revoked token does not come back.
    fn lock(&self) -> Result<std::fs::File, TokenError> {
        let lock = atomic_file::lock(&self.path).map_err(|source| self.io(source))?;
        // A change by another process within the clock's resolution would look like what is cached.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).stamp = None;
        Ok(lock)
    }

    fn io(&self, source: std::io::Error) -> TokenError {
        TokenError::Io { path: self.path.clone(), source }
    }
}

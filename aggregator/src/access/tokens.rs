//! Bearer tokens: 256 random bits, shown once; only their hash is stored.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use piperoll_format::time::Timestamp;
use piperoll_net::atomic_file;
use piperoll_protocol::access::{CreatedToken, Role, TokenInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::access::scope::{Scope, ScopeError, Written};

/// Prefix by which a token is recognised when it turns up where it should not.
const PREFIX: &str = "prl_";
const NAME_BYTES_MAX: usize = 64;
const TOKENS_MAX: usize = 10_000;

/// Reasons for failing to create, read or revoke a token.
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
    #[error("a token's name has 1 to {NAME_BYTES_MAX} of letters, digits, '-', '.', '_', '@'")]
    Name,
    #[error("there are {TOKENS_MAX} tokens, which is the limit; revoke one first")]
    Full,
    #[error(transparent)]
    Scope(#[from] ScopeError),
    #[error("the expiry {0} has passed already")]
    Expired(Timestamp),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    role: Role,
    /// SHA-256 of the token in hexadecimal. The token has 256 random bits, so it needs no slow hash.
    sha256: String,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    scope: Option<String>,
}

/// Holder of a token.
#[derive(Debug, Clone)]
pub struct Holder {
    /// SHA-256 of the token, in hexadecimal; identifies it where the token itself must not appear.
    pub sha256: String,
    pub name: String,
    pub role: Role,
    pub scope: Scope,
}

/// Result of looking up a token.
#[derive(Debug, Clone)]
pub enum Lookup {
    Good(Holder),
    /// A token of this name exists, but has expired.
    Expired(String),
    Unknown,
}

/// The token file. It is read again whenever it has changed, so that the command line and the daemon agree.
pub struct TokenStore {
    path: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    stamp: Option<(SystemTime, u64, u64)>,
    tokens: Vec<Stored>,
}

impl TokenStore {
    pub fn open(state_dir: &Path) -> Result<Self, TokenError> {
        if !state_dir.exists() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(state_dir)
                .map_err(|source| TokenError::Io { path: state_dir.to_owned(), source })?;
        }
        let store = Self { path: state_dir.join("tokens.json"), cache: Mutex::default() };
        store.load()?;
        Ok(store)
    }

    fn load(&self) -> Result<Vec<Stored>, TokenError> {
        let io = |source| TokenError::Io { path: self.path.clone(), source };
        let stamp = match std::fs::metadata(&self.path) {
            Ok(meta) => Some((meta.modified().map_err(io)?, meta.len(), meta.ino())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(io(source)),
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp != cache.stamp {
            cache.tokens = match stamp {
                None => Vec::new(),
                Some(_) => serde_json::from_slice(&std::fs::read(&self.path).map_err(io)?)
                    .map_err(|e| TokenError::Content { path: self.path.clone(), problem: e.to_string() })?,
            };
            cache.stamp = stamp;
        }
        Ok(cache.tokens.clone())
    }

    /// Locks the file. `create` and `revoke` hold the lock while they read, change and write it, in the command line and in the daemon.
    fn lock(&self) -> Result<std::fs::File, TokenError> {
        let file =
            atomic_file::lock(&self.path).map_err(|source| TokenError::Io { path: self.path.clone(), source })?;
        // A change by another process within the clock's resolution would look like the cached version.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).stamp = None;
        Ok(file)
    }

    fn save(&self, tokens: &[Stored]) -> Result<(), TokenError> {
        let bytes = serde_json::to_vec_pretty(tokens).unwrap_or_default();
        atomic_file::replace(&self.path, &bytes).map_err(|source| TokenError::Io { path: self.path.clone(), source })
    }

    /// Creates a token. This is the only time that the token itself is returned.
    pub fn create(
        &self,
        name: &str,
        role: Role,
        scope: Option<&str>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<CreatedToken, TokenError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._@".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
            return Err(TokenError::Name);
        }
        if let Some(expires) = expires.filter(|expires| *expires <= now) {
            return Err(TokenError::Expired(expires));
        }
        // Stored with its times in full, so that it means the same tomorrow.
        let scope = Scope::of(role, scope, Written::Now, now)?.text().map(str::to_owned);
        let _lock = self.lock()?;
        let mut tokens = self.load()?;
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        let mut random = [0u8; 32];
        getrandom::fill(&mut random)
            .map_err(|e| TokenError::Io { path: self.path.clone(), source: std::io::Error::other(e.to_string()) })?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let stored = Stored { name: name.to_owned(), role, sha256: hash(&token), created: now, expires, scope };
        let info = stored.info();
        tokens.push(stored);
        self.save(&tokens)?;
        Ok(CreatedToken { token, info })
    }

    pub fn list(&self) -> Result<Vec<TokenInfo>, TokenError> {
        Ok(self.load()?.iter().map(Stored::info).collect())
    }

    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let _lock = self.lock()?;
        let mut tokens = self.load()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(TokenError::NotFound(name.to_owned()));
        }
        self.save(&tokens)
    }

    pub fn find(&self, token: &str, now: Timestamp) -> Result<Lookup, TokenError> {
        self.find_hash(&hash(token), now)
    }

    /// Finds a token by its hash. Compares hashes in constant time.
    pub fn find_hash(&self, wanted: &str, now: Timestamp) -> Result<Lookup, TokenError> {
        for stored in self.load()? {
            if bool::from(stored.sha256.as_bytes().ct_eq(wanted.as_bytes())) {
                return Ok(match stored.expires {
                    Some(expires) if expires <= now => Lookup::Expired(stored.name),
                    _ => Lookup::Good(Holder {
                        scope: Scope::of(stored.role, stored.scope.as_deref(), Written::Kept, now)?,
                        sha256: stored.sha256,
                        name: stored.name,
                        role: stored.role,
                    }),
                });
            }
        }
        Ok(Lookup::Unknown)
    }
}

impl Stored {
    fn info(&self) -> TokenInfo {
        TokenInfo {
            name: self.name.clone(),
            role: self.role,
            created: self.created.to_text(),
            expires: self.expires.map(Timestamp::to_text),
            scope: self.scope.clone(),
        }
    }
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

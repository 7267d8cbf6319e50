//! Bearer tokens of people and programs, with their role and scope.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use piperoll_format::time::Timestamp;
use piperoll_net::token_file::{StoredToken, TokenFile, TokenFileError, TokenRules};
use piperoll_protocol::access::{CreatedToken, Role, TokenInfo};
use serde::{Deserialize, Serialize};

use crate::access::scope::{Scope, ScopeError, Written};

const RULES: TokenRules = TokenRules { name_marks: "-._@", tokens_max: 10_000 };

/// Reasons for failing to create, read or revoke a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    File(#[from] TokenFileError),
    #[error(transparent)]
    Scope(#[from] ScopeError),
    #[error("the expiry {0} is in the past")]
    Expired(Timestamp),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    name: String,
    role: Role,
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

/// The token file, a JSON list in the state directory.
pub struct TokenStore(TokenFile<Stored>);

impl TokenStore {
    /// Opens the token file below `state_dir`, which is created with mode 0700 if it is missing.
    ///
    /// # Errors
    /// When the directory cannot be created, or the file cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, TokenError> {
        if !state_dir.exists() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
            made.map_err(|source| TokenFileError::Io { path: state_dir.to_owned(), source })?;
        }
        let file = TokenFile::new(&state_dir.join("tokens.json"), RULES);
        file.list()?;
        Ok(Self(file))
    }

    /// Creates a token. This is the only time that the token itself is returned.
    ///
    /// # Errors
    /// When the name, the scope or the expiry is refused, or the file cannot be written.
    pub fn create(
        &self,
        name: &str,
        role: Role,
        scope: Option<&str>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<CreatedToken, TokenError> {
        if let Some(expires) = expires.filter(|expires| *expires <= now) {
            return Err(TokenError::Expired(expires));
        }
        // The scope is stored with its times in full, so that its meaning does not change as time passes.
        let scope = Scope::of(role, scope, Written::Now, now)?.text().map(str::to_owned);
        let describe = |sha256| Stored { name: name.to_owned(), role, sha256, created: now, expires, scope };
        let (token, stored) = self.0.create(name, describe)?;
        Ok(CreatedToken { token, info: stored.info() })
    }

    /// Returns the metadata of all tokens.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list(&self) -> Result<Vec<TokenInfo>, TokenError> {
        Ok(self.0.list()?.iter().map(Stored::info).collect())
    }

    /// Revokes a token immediately.
    ///
    /// # Errors
    /// When there is no token of this name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        Ok(self.0.revoke(name)?)
    }

    /// Looks a token up.
    ///
    /// # Errors
    /// When the file, or the scope in it, cannot be read.
    pub fn find(&self, token: &str, now: Timestamp) -> Result<Lookup, TokenError> {
        lookup(self.0.find(token)?, now)
    }

    /// Looks a token up by its hash.
    ///
    /// # Errors
    /// As [`TokenStore::find`].
    pub fn find_hash(&self, wanted: &str, now: Timestamp) -> Result<Lookup, TokenError> {
        lookup(self.0.find_hash(wanted)?, now)
    }
}

fn lookup(found: Option<Stored>, now: Timestamp) -> Result<Lookup, TokenError> {
    Ok(match found {
        None => Lookup::Unknown,
        Some(Stored { name, expires: Some(expires), .. }) if expires <= now => Lookup::Expired(name),
        Some(stored) => Lookup::Good(Holder {
            scope: Scope::of(stored.role, stored.scope.as_deref(), Written::Kept, now)?,
            sha256: stored.sha256,
            name: stored.name,
            role: stored.role,
        }),
    })
}

impl StoredToken for Stored {
    fn name(&self) -> &str {
        &self.name
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn read(bytes: &[u8]) -> Result<Vec<Self>, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    fn write(tokens: &[Self]) -> Result<Vec<u8>, String> {
        serde_json::to_vec_pretty(tokens).map_err(|e| e.to_string())
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

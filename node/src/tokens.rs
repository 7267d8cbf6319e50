//! Tokens for recording over HTTPS on loopback.

use std::path::Path;

use piperoll_format::time::Timestamp;
pub use piperoll_net::token_file::TokenFileError as TokenError;
use piperoll_net::token_file::{StoredToken, TokenFile, TokenRules};
use serde::{Deserialize, Serialize};

const RULES: TokenRules = TokenRules { name_marks: "-._", tokens_max: 1_000 };

/// Token metadata; the token itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingToken {
    /// Name of the token, which is written to `via` of the entries recorded with it.
    pub name: String,
    sha256: String,
    pub created: Timestamp,
}

/// Content of the token file, a TOML file with a list of `[[token]]`.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    token: Vec<RecordingToken>,
}

impl StoredToken for RecordingToken {
    fn name(&self) -> &str {
        &self.name
    }

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn read(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let content: Content = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        Ok(content.token)
    }

    fn write(tokens: &[Self]) -> Result<Vec<u8>, String> {
        let content = Content { token: tokens.to_vec() };
        toml::to_string(&content).map(String::into_bytes).map_err(|e| e.to_string())
    }
}

/// The tokens of one node.
pub struct RecordingTokens(TokenFile<RecordingToken>);

impl RecordingTokens {
    /// Uses the token file at `path`; a missing file counts as empty.
    pub fn new(path: &Path) -> Self {
        Self(TokenFile::new(path, RULES))
    }

    /// Returns the name of a token, or `None` if the token is unknown.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(&self, token: &str) -> Result<Option<String>, TokenError> {
        Ok(self.0.find(token)?.map(|known| known.name))
    }

    /// Returns the metadata of all tokens.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list(&self) -> Result<Vec<RecordingToken>, TokenError> {
        self.0.list()
    }

    /// Creates a token; the returned text is shown once and not stored.
    ///
    /// # Errors
    /// When the name is malformed or taken, or the file is full or cannot be written.
    pub fn create(&self, name: &str, now: Timestamp) -> Result<String, TokenError> {
        let describe = |sha256| RecordingToken { name: name.to_owned(), sha256, created: now };
        Ok(self.0.create(name, describe)?.0)
    }

    /// Revokes a token immediately.
    ///
    /// # Errors
    /// When no token has this name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        self.0.revoke(name)
    }
}

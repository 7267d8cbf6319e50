//! A file of bearer tokens with 256 random bits each. A token is shown once; only its SHA-256 is stored. The file is read again
//! whenever it has changed, so that a change by the command line takes effect in the daemon and vice versa.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::atomic_file;

/// Prefix of every token, by which a token in other text is recognized and masked.
const PREFIX: &str = "prl_";
/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
const NAME_BYTES_MAX: usize = 64;

/// Reasons for failing to create, read or revoke a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
    #[error("a token named {0:?} already exists; revoke it first or choose another name")]
    Exists(String),
    #[error("no token named {0:?}")]
    NotFound(String),
    #[error("a token name must be 1 to {NAME_BYTES_MAX} characters long: letters, digits and any of {0}")]
    Name(&'static str),
    #[error("the maximum of {0} tokens is reached; revoke one first")]
    Full(usize),
}

/// Stored form of one token.
pub trait StoredToken: Clone + Sized {
    fn name(&self) -> &str;
    /// Returns the SHA-256 of the token in hexadecimal. A slow hash is not needed, because the token has 256 random bits.
    fn sha256(&self) -> &str;
    /// Parses the content of a token file.
    ///
    /// # Errors
    /// Returns a message that describes the problem with the content.
    fn read(bytes: &[u8]) -> Result<Vec<Self>, String>;
    /// Serializes the content of a token file.
    ///
    /// # Errors
    /// Returns a message if the tokens cannot be serialized.
    fn write(tokens: &[Self]) -> Result<Vec<u8>, String>;
}

/// Limits of one kind of token file.
#[derive(Debug, Clone, Copy)]
pub struct TokenRules {
    /// Characters that a name may contain besides ASCII letters and digits.
    pub name_marks: &'static str,
    pub tokens_max: usize,
}

/// A file of tokens. A missing file is treated as empty.
pub struct TokenFile<T> {
    path: PathBuf,
    rules: TokenRules,
    cache: Mutex<Cache<T>>,
}

struct Cache<T> {
    /// Modification time, length and inode of the file when it was read; `None` if it did not exist or must be read again.
    stamp: Option<(SystemTime, u64, u64)>,
    tokens: Vec<T>,
}

impl<T: StoredToken> TokenFile<T> {
    pub fn new(path: &Path, rules: TokenRules) -> Self {
        Self { path: path.to_owned(), rules, cache: Mutex::new(Cache { stamp: None, tokens: Vec::new() }) }
    }

    /// Returns all tokens.
    ///
    /// # Errors
    /// Fails if the file cannot be read.
    pub fn list(&self) -> Result<Vec<T>, TokenFileError> {
        let io = |source| self.io(source);
        let stamp = match std::fs::metadata(&self.path) {
            Ok(meta) => Some((meta.modified().map_err(io)?, meta.len(), meta.ino())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(io(source)),
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        match stamp {
            None => *cache = Cache { stamp, tokens: Vec::new() },
            Some(_) if stamp == cache.stamp => {}
            Some(_) => {
                let tokens = T::read(&std::fs::read(&self.path).map_err(io)?);
                *cache = Cache { stamp, tokens: tokens.map_err(|problem| self.content(problem))? };
            }
        }
        Ok(cache.tokens.clone())
    }

    /// Finds the stored form of a token.
    ///
    /// # Errors
    /// Fails in the same cases as [`TokenFile::list`].
    pub fn find(&self, token: &str) -> Result<Option<T>, TokenFileError> {
        self.find_hash(&hash(token))
    }

    /// Finds a token by its hash. Compares hashes in constant time.
    ///
    /// # Errors
    /// Fails in the same cases as [`TokenFile::list`].
    pub fn find_hash(&self, wanted: &str) -> Result<Option<T>, TokenFileError> {
        let is_it = |known: &T| bool::from(known.sha256().as_bytes().ct_eq(wanted.as_bytes()));
        Ok(self.list()?.into_iter().find(is_it))
    }

    /// Creates a token; `describe` builds its stored form from its SHA-256. This is the only time that the token itself is
    /// returned.
    ///
    /// # Errors
    /// Fails if the name is malformed or already in use, the file is full, or the file cannot be read or written.
    pub fn create(&self, name: &str, describe: impl FnOnce(String) -> T) -> Result<(String, T), TokenFileError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || self.rules.name_marks.contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_allowed) {
            return Err(TokenFileError::Name(self.rules.name_marks));
        }
        let _lock = self.lock()?;
        let mut tokens = self.list()?;
        if tokens.iter().any(|known| known.name() == name) {
            return Err(TokenFileError::Exists(name.to_owned()));
        }
        if tokens.len() >= self.rules.tokens_max {
            return Err(TokenFileError::Full(self.rules.tokens_max));
        }
        let mut random = [0u8; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|e| self.io(std::io::Error::other(e.to_string())))?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let stored = describe(hash(&token));
        tokens.push(stored.clone());
        self.save(&tokens)?;
        Ok((token, stored))
    }

    /// Removes a token. It is invalid from then on.
    ///
    /// # Errors
    /// Fails if no token has this name, or the file cannot be read or written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenFileError> {
        let _lock = self.lock()?;
        let mut tokens = self.list()?;
        let before = tokens.len();
        tokens.retain(|known| known.name() != name);
        if tokens.len() == before {
            return Err(TokenFileError::NotFound(name.to_owned()));
        }
        self.save(&tokens)
    }

    /// Locks the file. `create` and `revoke` hold this lock, both in the command line and in the daemon, while they read, change
    /// and write the file, so that a revoked token does not reappear.
    fn lock(&self) -> Result<std::fs::File, TokenFileError> {
        let lock = atomic_file::lock(&self.path).map_err(|source| self.io(source))?;
        // If another process changed the file before the clock advanced, the file's stamp may equal the cached one, so discard
        // the cache.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).stamp = None;
        Ok(lock)
    }

    fn save(&self, tokens: &[T]) -> Result<(), TokenFileError> {
        let bytes = T::write(tokens).map_err(|problem| self.content(problem))?;
        atomic_file::replace(&self.path, &bytes).map_err(|source| self.io(source))
    }

    fn io(&self, source: std::io::Error) -> TokenFileError {
        TokenFileError::Io { path: self.path.clone(), source }
    }

    fn content(&self, problem: String) -> TokenFileError {
        TokenFileError::Content { path: self.path.clone(), problem }
    }
}

fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Stored {
        name: String,
        sha256: String,
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
            serde_json::to_vec(tokens).map_err(|e| e.to_string())
        }
    }

    #[test]
    fn a_token_is_found_by_what_was_shown_once_and_not_after_it_was_revoked() {
        let dir = tempfile::tempdir().expect("a folder");
        let rules = TokenRules { name_marks: "-", tokens_max: 2 };
        let (file, other) = (TokenFile::<Stored>::new(&dir.path().join("t"), rules), dir.path().join("t"));
        let named = |name: &str| {
            let name = name.to_owned();
            move |sha256| Stored { name, sha256 }
        };
        assert!(file.list().expect("no file is no token").is_empty());
        let (token, stored) = file.create("ci-1", named("ci-1")).expect("a token");
        assert!(token.starts_with(PREFIX) && token.len() == PREFIX.len() + 43);
        assert!(!std::fs::read_to_string(&other).expect("the file").contains(&token[PREFIX.len()..]));
        // A second `TokenFile` for the same path finds the token, and the first one sees the changes made through the second.
        let second = TokenFile::<Stored>::new(&other, rules);
        assert_eq!(second.find(&token).expect("read"), Some(stored));
        assert!(matches!(second.create("ci-1", named("ci-1")), Err(TokenFileError::Exists(_))));
        assert!(matches!(second.create("a b", named("a b")), Err(TokenFileError::Name("-"))));
        second.create("b", named("b")).expect("a token");
        assert!(matches!(second.create("c", named("c")), Err(TokenFileError::Full(2))));
        second.revoke("ci-1").expect("revoked");
        assert_eq!(file.find(&token).expect("read"), None);
        assert!(matches!(file.revoke("ci-1"), Err(TokenFileError::NotFound(_))));
        std::fs::write(&other, "not a list").expect("written");
        assert!(matches!(file.list(), Err(TokenFileError::Content { .. })));
    }
}

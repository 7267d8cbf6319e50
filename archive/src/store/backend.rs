//! Opens the store at an address: a directory, or a bucket of an S3 service.

use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::credentials::Credentials;
use super::error::StoreError;

/// Time limit for the requests of one operation, retries included. A step that fails is repeated later.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of a single request. An object has at most 128 MiB.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES_MAX: usize = 5;

/// Location of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `file:///srv/archive`: a directory on this machine.
    Directory(PathBuf),
    /// `s3://bucket/prefix`: a bucket of Amazon S3 or of a service with the same interface.
    S3 { bucket: String, prefix: String },
}

/// Reason why a text is not the address of an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{0:?} is not the address of an archive: expected file:///DIRECTORY or s3://BUCKET/PREFIX")]
    Form(String),
    #[error(
        "the address of an archive must not contain credentials; use the environment or the file that `credentials` names"
    )]
    Credentials,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // A query may contain a secret, so it is not repeated.
        let form = || AddressError::Form(text.split(['?', '#']).next().unwrap_or_default().to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        if rest.contains('@') {
            return Err(AddressError::Credentials);
        }
        if rest.contains(['?', '#', '%']) || rest.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(form());
        }
        match scheme {
            "file" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Directory(PathBuf::from(rest))),
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = prefix.trim_end_matches('/');
                if bucket.is_empty() || prefix.split('/').any(str::is_empty) && !prefix.is_empty() {
                    return Err(form());
                }
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Address {
    /// Opens the store, and returns the prefix of all names. `create` makes a missing directory.
    pub(super) fn open(
        &self,
        credentials: Option<&Credentials>,
        create: bool,
    ) -> Result<(Arc<dyn ObjectStore>, String), StoreError> {
        let failed = |error: object_store::Error| StoreError::open(&self.to_string(), &error);
        match self {
            Self::Directory(path) => {
                if create {
                    // The rows are as confidential as the nodes' logs.
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(path)
                        .map_err(|error| StoreError::Directory { path: path.clone(), error })?;
                }
                // Without `with_fsync`, an object that was reported as created could be lost in a power failure.
                let store = LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true);
                Ok((Arc::new(store), String::new()))
            }
            Self::S3 { bucket, prefix } => {
                let mut builder = AmazonS3Builder::from_env();
                for (name, value) in credentials.iter().flat_map(|credentials| credentials.iter()) {
                    let key = name.parse::<AmazonS3ConfigKey>().map_err(|_| StoreError::Setting(name.to_owned()))?;
                    builder = builder.with_config(key, value);
                }
                let options = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
                let plain =
                    builder.get_config_value(&AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp));
                let options = options.with_allow_http(plain.is_some_and(|value| value == "true" || value == "1"));
                let retry = RetryConfig {
                    max_retries: RETRIES_MAX,
                    retry_timeout: OPERATION_TIMEOUT,
                    ..RetryConfig::default()
                };
                let builder = builder.with_bucket_name(bucket).with_client_options(options).with_retry(retry);
                Ok((Arc::new(builder.build().map_err(failed)?), prefix.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_one_form_only() {
        for (text, shown) in [
            ("file:///srv/archive", "file:///srv/archive"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(shown.to_owned()));
        }
        for bad in [
            "",
            "/srv/archive",
            "file://srv",
            "file:///",
            "file:///srv/../etc",
            "s3://",
            "s3:///prefix",
            "s3://b//c",
            "ftp://x/y",
            "s3://bucket/a?b",
            "s3://bucket/%2e%2e/x",
        ] {
            assert!(matches!(bad.parse::<Address>(), Err(AddressError::Form(_))), "{bad:?}");
        }
        let error = "s3://AKIA123:secret@bucket/x".parse::<Address>().expect_err("credentials");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

//! Opens the store at an address, together with the interface to the versions of its objects. Both use the same settings.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::address::Address;
use super::credentials::Credentials;
use super::error::StoreError;
use super::versions::{AzureVersions, Backend, Client, DirectoryVersions, GcsVersions, S3Versions, Signer};

/// Time limit for the requests of one operation, retries included. A step that fails is repeated later.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of a single request. An object has at most 128 MiB.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES_MAX: usize = 5;
/// Address of Google Cloud Storage, unless the settings name another one.
const GCS_BASE_URL: &str = "https://storage.googleapis.com";
/// Variable with the address of Azurite, the emulator of Azure Storage, and its default; the same as in `object_store`.
const AZURITE_VARIABLE: &str = "AZURITE_BLOB_STORAGE_URL";
const AZURITE_BASE_URL: &str = "http://127.0.0.1:10000";
const AZURITE_ACCOUNT: &str = "devstoreaccount1";

/// An opened store.
pub(super) struct Opened {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Prefix of all names.
    pub(super) prefix: String,
    pub(super) versions: Arc<Backend>,
}

impl Address {
    /// Opens the store. `create` makes a missing directory.
    pub(super) fn open(&self, credentials: Option<&Credentials>, create: bool) -> Result<Opened, StoreError> {
        let shown = self.to_string();
        match self {
            Self::Directory(path) => open_directory(path, &shown, create),
            Self::S3 { bucket, prefix } => open_s3(bucket, prefix, &shown, credentials),
            Self::Azure { container, prefix } => open_azure(container, prefix, &shown, credentials),
            Self::Gcs { bucket, prefix } => open_gcs(bucket, prefix, &shown, credentials),
        }
    }
}

fn open_directory(path: &Path, shown: &str, create: bool) -> Result<Opened, StoreError> {
    if create {
        // The rows are as confidential as the nodes' logs.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| StoreError::Directory { path: path.to_owned(), error })?;
    }
    let failed = |error: object_store::Error| StoreError::open(shown, &error);
    // Without `with_fsync`, an object that was reported as created could be lost in a power failure.
    let store = Arc::new(LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true));
    let versions = Arc::new(Backend::Directory(DirectoryVersions::new(Arc::clone(&store), shown)));
    Ok(Opened { store, prefix: String::new(), versions })
}

fn open_s3(bucket: &str, prefix: &str, shown: &str, credentials: Option<&Credentials>) -> Result<Opened, StoreError> {
    let failed = |error: object_store::Error| StoreError::open(shown, &error);
    let builder =
        configured(AmazonS3Builder::from_env(), credentials, |builder, key, value| builder.with_config(key, value))?;
    let setting = |key| builder.get_config_value(&key);
    let is_set = |key| is_true(setting(key).as_deref());
    let plain = is_set(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    let region = setting(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint = setting(AmazonS3ConfigKey::S3Endpoint).or_else(|| setting(AmazonS3ConfigKey::Endpoint));
    // With an endpoint and virtual-hosted requests, the endpoint contains the bucket already.
    let url = match (endpoint, is_set(AmazonS3ConfigKey::VirtualHostedStyleRequest)) {
        (Some(endpoint), true) => endpoint.trim_end_matches('/').to_owned(),
        (Some(endpoint), false) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
    };
    let url = checked_url(url, shown)?;
    check_header_values([setting(AmazonS3ConfigKey::AccessKeyId), setting(AmazonS3ConfigKey::Token)], shown)?;
    let (signed, payer) = (!is_set(AmazonS3ConfigKey::SkipSignature), is_set(AmazonS3ConfigKey::RequestPayer));
    let express = is_set(AmazonS3ConfigKey::S3Express);
    let builder = builder.with_bucket_name(bucket).with_client_options(options(plain)).with_retry(retry());
    let store = builder.build().map_err(failed)?;
    let signer = if signed {
        Signer::Aws { credentials: Arc::clone(store.credentials()), region, payer }
    } else {
        Signer::Unsigned
    };
    let versions = S3Versions::new(Client::new(signer, plain, shown)?, url, express);
    Ok(Opened { store: Arc::new(store), prefix: prefix.to_owned(), versions: Arc::new(Backend::S3(versions)) })
}

fn open_azure(
    container: &str,
    prefix: &str,
    shown: &str,
    credentials: Option<&Credentials>,
) -> Result<Opened, StoreError> {
    let failed = |error: object_store::Error| StoreError::open(shown, &error);
    let builder = MicrosoftAzureBuilder::from_env();
    let builder = configured(builder, credentials, |builder, key, value| builder.with_config(key, value))?;
    let setting = |key| builder.get_config_value(&key);
    let is_set = |key| is_true(setting(key).as_deref());
    let emulator = is_set(AzureConfigKey::UseEmulator);
    let plain = emulator || is_set(AzureConfigKey::Client(ClientConfigKey::AllowHttp));
    let account = setting(AzureConfigKey::AccountName).or_else(|| emulator.then(|| AZURITE_ACCOUNT.to_owned()));
    let account = account.ok_or_else(|| StoreError::Open {
        address: shown.to_owned(),
        reason: "no storage account; set AZURE_STORAGE_ACCOUNT_NAME, or azure_storage_account_name in the file of credentials"
            .to_owned(),
    })?;
    let url = match (emulator, setting(AzureConfigKey::Endpoint)) {
        (true, _) => {
            let base = std::env::var(AZURITE_VARIABLE).unwrap_or_else(|_| AZURITE_BASE_URL.to_owned());
            format!("{}/{account}/{container}", base.trim_end_matches('/'))
        }
        (false, Some(endpoint)) => format!("{}/{container}", endpoint.trim_end_matches('/')),
        (false, None) if is_set(AzureConfigKey::UseFabricEndpoint) => {
            format!("https://{account}.blob.fabric.microsoft.com/{container}")
        }
        (false, None) => format!("https://{account}.blob.core.windows.net/{container}"),
    };
    let url = checked_url(url, shown)?;
    check_header_values([setting(AzureConfigKey::AccountName), setting(AzureConfigKey::Token)], shown)?;
    let signed = !is_set(AzureConfigKey::SkipSignature);
    let builder = builder.with_container_name(container).with_client_options(options(plain)).with_retry(retry());
    let store = builder.build().map_err(failed)?;
    let signer =
        if signed { Signer::Azure { credentials: Arc::clone(store.credentials()), account } } else { Signer::Unsigned };
    let versions = AzureVersions::new(Client::new(signer, plain, shown)?, url);
    Ok(Opened { store: Arc::new(store), prefix: prefix.to_owned(), versions: Arc::new(Backend::Azure(versions)) })
}

fn open_gcs(bucket: &str, prefix: &str, shown: &str, credentials: Option<&Credentials>) -> Result<Opened, StoreError> {
    let failed = |error: object_store::Error| StoreError::open(shown, &error);
    let builder = GoogleCloudStorageBuilder::from_env();
    let builder = configured(builder, credentials, |builder, key, value| builder.with_config(key, value))?;
    let setting = |key| builder.get_config_value(&key);
    // The builder's own default allows plain HTTP, so whether the operator allows it can only be seen from the address.
    let base = setting(GoogleConfigKey::BaseUrl).unwrap_or_else(|| GCS_BASE_URL.to_owned());
    let base = checked_url(base.trim_end_matches('/').to_owned(), shown)?;
    check_header_values([setting(GoogleConfigKey::BearerToken)], shown)?;
    let plain = base.starts_with("http://");
    let signed = !is_true(setting(GoogleConfigKey::SkipSignature).as_deref());
    // Set explicitly, because the file of a service account can contain another address.
    let builder = builder.with_bucket_name(bucket).with_base_url(&base);
    let store = builder.with_client_options(options(plain)).with_retry(retry()).build().map_err(failed)?;
    let signer =
        if signed { Signer::Google { credentials: Arc::clone(store.credentials()) } } else { Signer::Unsigned };
    let versions = GcsVersions::new(Client::new(signer, plain, shown)?, &base, bucket);
    Ok(Opened { store: Arc::new(store), prefix: prefix.to_owned(), versions: Arc::new(Backend::Gcs(versions)) })
}

/// Applies the file of credentials to a builder that has read the environment.
fn configured<B, K: FromStr>(
    mut builder: B,
    credentials: Option<&Credentials>,
    with: impl Fn(B, K, &str) -> B,
) -> Result<B, StoreError> {
    for (name, value) in credentials.iter().flat_map(|credentials| credentials.iter()) {
        let key = name.parse::<K>().map_err(|_| StoreError::Setting(name.to_owned()))?;
        builder = with(builder, key, value);
    }
    Ok(builder)
}

/// Checks the address that the settings amount to. `object_store` panics at the first request if it has no scheme.
fn checked_url(url: String, shown: &str) -> Result<String, StoreError> {
    let parsed = reqwest::Url::parse(&url).ok();
    let is_plain = |url: &reqwest::Url| {
        let has_secret =
            !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some();
        matches!(url.scheme(), "http" | "https") && url.has_host() && !has_secret
    };
    if parsed.as_ref().is_some_and(is_plain) {
        return Ok(url);
    }
    // The address is not repeated, because it may contain a secret.
    let reason = "the endpoint in the settings is not an address such as https://storage.example.com:9000".to_owned();
    Err(StoreError::Open { address: shown.to_owned(), reason })
}

/// Checks settings that become part of a header. `object_store` panics at the first request if one has a line break.
fn check_header_values(values: impl IntoIterator<Item = Option<String>>, shown: &str) -> Result<(), StoreError> {
    if values.into_iter().flatten().all(|value| value.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Ok(());
    }
    let reason =
        "a key or token in the settings has a line break, a space, or another character that no header can carry"
            .to_owned();
    Err(StoreError::Open { address: shown.to_owned(), reason })
}

/// Whether a setting is on; the same words as in `object_store`.
fn is_true(value: Option<&str>) -> bool {
    value.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y"))
}

fn options(plain: bool) -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT).with_allow_http(plain)
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: OPERATION_TIMEOUT, ..RetryConfig::default() }
}

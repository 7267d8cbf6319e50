//! Azure's versions, against a server that behaves as the service does: the current version is not deleted by its identifier, a
//! blob with snapshots is not deleted without them, and soft delete needs a second, permanent deletion.

use super::super::credentials::Credentials;
use super::super::{Address, Store, StoreError};
use super::scripted::{Reply, Request, serve};
use super::{Deleted, Lock, LockMode};

/// A key that is no secret; the same as in the emulator's documentation.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

#[derive(Clone, Default)]
struct Blob {
    name: &'static str,
    version: Option<&'static str>,
    snapshot: Option<&'static str>,
    current: bool,
    deleted: bool,
    immutable: Option<&'static str>,
}

/// A container with the settings of its account.
#[derive(Default)]
struct Service {
    blobs: Vec<Blob>,
    soft_delete: bool,
    permanent: bool,
    /// Number of blobs per page.
    page: usize,
}

impl Service {
    fn reply(&mut self, request: &Request) -> Reply {
        assert!(request.headers.contains("authorization: sharedkey account:"), "{}", request.headers);
        assert!(request.headers.contains("x-ms-version: 2023-11-03"), "{}", request.headers);
        match request.method.as_str() {
            "GET" => self.list(request),
            "DELETE" => self.delete(request),
            _ => self.properties(request),
        }
    }

    fn list(&self, request: &Request) -> Reply {
        assert_eq!(request.query("include").as_deref(), Some("snapshots,versions,deleted"));
        let prefix = request.query("prefix").expect("a prefix");
        let from = request.query("marker").map_or(0, |marker| marker.parse::<usize>().expect("a number"));
        let all = self.blobs.iter().filter(|blob| blob.name.starts_with(&prefix)).collect::<Vec<_>>();
        let page = if self.page == 0 { all.len() } else { self.page };
        let optional =
            |name: &str, value: Option<&str>| value.map_or(String::new(), |value| format!("<{name}>{value}</{name}>"));
        let items = all.iter().skip(from).take(page).map(|blob| {
            let days = if blob.deleted { "<RemainingRetentionDays>6</RemainingRetentionDays>" } else { "" };
            format!(
                "<Blob><Name>{}</Name>{}{}{}{}<Properties><Content-Length>1</Content-Length>{days}</Properties></Blob>",
                blob.name,
                optional("Snapshot", blob.snapshot),
                optional("VersionId", blob.version),
                if blob.current { "<IsCurrentVersion>true</IsCurrentVersion>" } else { "" },
                if blob.deleted { "<Deleted>true</Deleted>" } else { "" },
            )
        });
        let items = items.collect::<String>();
        let next = if from + page < all.len() { (from + page).to_string() } else { String::new() };
        let xml = format!(
            "<EnumerationResults ContainerName=\"c\"><Blobs>{items}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
        );
        (200, String::new(), format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>{xml}"))
    }

    fn delete(&mut self, request: &Request) -> Reply {
        let Some(at) = self.find(request) else { return refusal(404, "BlobNotFound") };
        let blob = self.blobs[at].clone();
        let is_base = request.query("versionid").is_none() && request.query("snapshot").is_none();
        let permanent = request.query("deletetype").as_deref() == Some("permanent");
        if permanent && !blob.deleted {
            return refusal(409, "BlobSnapshotNotSoftDeleted");
        }
        if permanent && !self.permanent {
            return refusal(409, "FeatureNotEnabled");
        }
        if !is_base && blob.current {
            return refusal(403, "OperationNotAllowedOnRootBlob");
        }
        if is_base && blob.version.is_some() {
            self.blobs[at].current = false;
            return (202, String::new(), String::new());
        }
        if blob.immutable.is_some() {
            return refusal(
                409,
                if blob.immutable == Some("hold") { "BlobImmutableDueToLegalHold" } else { "BlobImmutableDueToPolicy" },
            );
        }
        if is_base && self.blobs.iter().any(|other| other.snapshot.is_some() && other.name == blob.name) {
            assert!(request.headers.contains("x-ms-delete-snapshots: include"));
            self.blobs.retain(|other| other.snapshot.is_none() || other.name != blob.name);
        }
        if self.soft_delete && !blob.deleted {
            self.blobs[at].deleted = true;
        } else {
            self.blobs.remove(at);
        }
        (202, String::new(), String::new())
    }

    fn properties(&self, request: &Request) -> Reply {
        let Some(at) = self.find(request) else { return refusal(404, "BlobNotFound") };
        let headers = match self.blobs[at].immutable {
            Some("hold") => "x-ms-legal-hold: true\r\n".to_owned(),
            Some("container") | None => String::new(),
            Some(mode) => {
                format!(
                    "x-ms-immutability-policy-until-date: Fri, 02 Mar 2035 10:00:00 GMT\r\nx-ms-immutability-policy-mode: {mode}\r\n"
                )
            }
        };
        (200, headers, String::new())
    }

    fn find(&self, request: &Request) -> Option<usize> {
        let (version, snapshot) = (request.query("versionid"), request.query("snapshot"));
        let path = request.target.split('?').next().expect("a path");
        let name = path.strip_prefix("/c/").expect("the container");
        self.blobs.iter().position(|blob| {
            blob.name.replace('=', "%3D") == name
                && match (&version, &snapshot) {
                    (Some(version), _) => blob.version == Some(version.as_str()),
                    (None, Some(snapshot)) => blob.snapshot == Some(snapshot.as_str()),
                    (None, None) => {
                        blob.snapshot.is_none() && !blob.deleted && (blob.version.is_none() || blob.current)
                    }
                }
        })
    }
}

fn refusal(status: u16, code: &str) -> Reply {
    let body =
        format!("\u{feff}<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no\nRequestId:1</Message></Error>");
    (status, format!("x-ms-error-code: {code}\r\n"), body)
}

const NAME: &str = "data/day=1/x";

fn version(version: &'static str, current: bool) -> Blob {
    Blob { name: NAME, version: Some(version), current, ..Blob::default() }
}

async fn deleted(mut service: Service) -> Result<Deleted, StoreError> {
    service.blobs.push(Blob { name: "data/day=1/x2", ..Blob::default() });
    let endpoint = serve(move |request| service.reply(request)).await;
    store(&endpoint).delete_all_versions(NAME).await
}

fn store(endpoint: &str) -> Store {
    let settings = [
        ("azure_storage_account_name", "account"),
        ("azure_storage_account_key", KEY),
        ("azure_storage_endpoint", endpoint),
        ("azure_allow_http", "true"),
    ];
    let address = "az://c".parse::<Address>().expect("an address");
    Store::open(&address, Some(&Credentials::of(&settings))).expect("a store")
}

#[tokio::test]
async fn versions_and_snapshots_are_deleted() {
    let snapshot = Blob { name: NAME, snapshot: Some("2026-01-01T00:00:00.0000001Z"), ..Blob::default() };
    let blobs = vec![version("1", false), version("2", false), version("3", true), snapshot.clone()];
    assert_eq!(
        deleted(Service { blobs, page: 2, ..Service::default() }).await.expect("deleted"),
        Deleted::All { versions: 4 }
    );
    let unversioned = Blob { name: NAME, ..Blob::default() };
    let blobs = vec![unversioned, snapshot];
    assert_eq!(deleted(Service { blobs, ..Service::default() }).await.expect("deleted"), Deleted::All { versions: 2 });
    assert_eq!(deleted(Service::default()).await.expect("nothing"), Deleted::Nothing);
}

#[tokio::test]
async fn soft_deleted_versions_are_erased_or_reported() {
    let blobs = vec![version("1", false), version("2", true)];
    let service = Service { blobs: blobs.clone(), soft_delete: true, permanent: true, ..Service::default() };
    assert_eq!(deleted(service).await.expect("deleted"), Deleted::All { versions: 2 });
    let service = Service { blobs, soft_delete: true, ..Service::default() };
    let Deleted::Recoverable { versions: 2, until: Some(until) } = deleted(service).await.expect("deleted") else {
        panic!("the versions are still there")
    };
    let days =
        (until.timestamp() - chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).timestamp()) / 86_400;
    assert!((6..=7).contains(&days), "{days}");
    let unversioned = vec![Blob { name: NAME, ..Blob::default() }];
    let service = Service { blobs: unversioned, soft_delete: true, permanent: true, ..Service::default() };
    assert!(matches!(deleted(service).await.expect("deleted"), Deleted::Recoverable { versions: 1, until: Some(_) }));
}

#[tokio::test]
async fn a_lock_is_named_with_its_date() {
    let until = chrono::DateTime::parse_from_rfc3339("2035-03-02T10:00:00Z").expect("a date").to_utc();
    for (immutable, lock) in [
        ("Locked", Lock { mode: LockMode::Compliance, until: Some(until) }),
        ("Unlocked", Lock { mode: LockMode::Governance, until: Some(until) }),
        ("container", Lock { mode: LockMode::Policy, until: None }),
        ("hold", Lock { mode: LockMode::Hold, until: None }),
    ] {
        let locked = Blob { immutable: Some(immutable), ..version("2", true) };
        let service = Service { blobs: vec![version("1", false), locked], ..Service::default() };
        assert_eq!(deleted(service).await.expect("an answer"), Deleted::Locked { versions: 1, lock });
    }
}

#[tokio::test]
async fn an_account_without_versions_and_a_refusal_are_reported() {
    let endpoint = serve(|_| refusal(400, "UnsupportedQueryParameter")).await;
    let result = store(&endpoint).delete_all_versions(NAME).await.expect("an answer");
    assert_eq!(result, Deleted::CannotList { reason: "400 UnsupportedQueryParameter no".to_owned() });
    let endpoint = serve(|_| refusal(403, "AuthorizationPermissionMismatch")).await;
    let error = store(&endpoint).delete_all_versions(NAME).await.expect_err("no right");
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("403 AuthorizationPermissionMismatch no; the credentials need"), "{error}");
}

//! Behavior that no test server for S3 shows: pages, transient failures, services without versions, and settings of the address.

use std::sync::{Arc, Mutex};

use super::super::credentials::Credentials;
use super::super::{Address, Store, StoreError};
use super::Deleted;
use super::scripted::{Reply, Request, serve};

fn store_with(settings: &[(&str, &str)]) -> Result<Store, StoreError> {
    let keys = [("aws_access_key_id", "key"), ("aws_secret_access_key", "hidden"), ("aws_allow_http", "true")];
    let settings = keys.iter().chain(settings).copied().collect::<Vec<_>>();
    Store::open(&"s3://b/p".parse::<Address>().expect("an address"), Some(&Credentials::of(&settings)))
}

fn store(endpoint: &str) -> Store {
    store_with(&[("aws_endpoint", endpoint)]).expect("a store")
}

fn xml(body: &str) -> Reply {
    (200, String::new(), format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}"))
}

fn refusal(status: u16, code: &str) -> Reply {
    (
        status,
        String::new(),
        format!("<Error><Code>{code}</Code><Message>no</Message><Signature>hidden</Signature></Error>"),
    )
}

/// A bucket with the given versions of `p/x`, one per page, that fails every third request once.
struct Service {
    versions: Vec<String>,
    requests: usize,
    log: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn reply(&mut self, request: &Request) -> Reply {
        self.requests += 1;
        if self.requests % 3 == 2 {
            return refusal(503, "SlowDown");
        }
        assert!(request.headers.contains("authorization: aws4-hmac-sha256 credential=key/"), "{}", request.headers);
        self.log.lock().expect("no panic").push(format!("{} {}", request.method, request.target));
        if request.method == "DELETE" {
            let id = request.query("versionId").expect("never without a version");
            self.versions.retain(|version| *version != id);
            return (204, String::new(), String::new());
        }
        let marker = request.query("version-id-marker");
        let from = marker
            .map_or(0, |marker| self.versions.iter().position(|version| *version == marker).map_or(0, |at| at + 1));
        let entry = |tag: &str, key: &str, id: &str| {
            format!("<{tag}><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>false</IsLatest></{tag}>")
        };
        let Some(id) = self.versions.get(from) else {
            return xml("<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>");
        };
        let next = format!(
            "<IsTruncated>true</IsTruncated><NextKeyMarker>p/x</NextKeyMarker><NextVersionIdMarker>{id}</NextVersionIdMarker>"
        );
        let tag = if from.is_multiple_of(2) { "Version" } else { "DeleteMarker" };
        let entries =
            format!("{}{}{}", entry("Version", "p/x2", "o"), entry(tag, "p/x", id), entry("Version", "p/x/y", "o"));
        xml(&format!(
            "<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{next}{entries}</ListVersionsResult>"
        ))
    }
}

#[tokio::test]
async fn pages_are_followed_and_transient_failures_repeated() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let versions = ["a+/=1", "null", "b"].map(str::to_owned).to_vec();
    let mut service = Service { versions, requests: 0, log: Arc::clone(&log) };
    let endpoint = serve(move |request| service.reply(request)).await;
    assert_eq!(store(&endpoint).delete_all_versions("x").await.expect("deleted"), Deleted::All { versions: 3 });
    let log = log.lock().expect("no panic");
    assert!(log.iter().any(|line| line == "DELETE /b/p/x?versionId=a%2B%2F%3D1"), "{log:?}");
    assert!(log.iter().all(|line| !line.contains("hidden")), "{log:?}");
    assert!(
        log.iter().filter(|line| line.starts_with("DELETE")).all(|line| line.starts_with("DELETE /b/p/x?versionId=")),
        "{log:?}"
    );
}

#[tokio::test]
async fn too_many_versions_are_refused() {
    let entries =
        (0..1_001).map(|n| format!("<Version><Key>p/x</Key><VersionId>{n}</VersionId></Version>")).collect::<String>();
    let endpoint = serve(move |request| {
        assert_eq!(request.method, "GET");
        xml(&format!("<ListVersionsResult>{entries}</ListVersionsResult>"))
    });
    let error = store(&endpoint.await).delete_all_versions("x").await.expect_err("too many");
    assert!(matches!(error, StoreError::TooManyVersions { .. }), "{error}");
    // A list that never ends.
    let page =
        "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/x</NextKeyMarker></ListVersionsResult>";
    let endpoint = serve(|_| xml(page)).await;
    let error = store(&endpoint).delete_all_versions("x").await.expect_err("too many pages");
    assert!(matches!(error, StoreError::TooManyVersions { .. }), "{error}");
}

#[tokio::test]
async fn a_store_that_keeps_versions_is_noticed() {
    let list = "<ListVersionsResult><Version><Key>p/x</Key><VersionId>1</VersionId></Version></ListVersionsResult>";
    let endpoint =
        serve(|request| if request.method == "GET" { xml(list) } else { (204, String::new(), String::new()) }).await;
    let error = store(&endpoint).delete_all_versions("x").await.expect_err("a version remains");
    assert!(matches!(error, StoreError::VersionsRemain { versions: 1, .. }), "{error}");
}

#[tokio::test]
async fn services_without_versions_are_named() {
    let plain = "<ListBucketResult><Contents><Key>p/x</Key></Contents></ListBucketResult>";
    for (reply, wanted) in [
        (refusal(501, "NotImplemented"), "501 NotImplemented no"),
        (refusal(400, "NotImplemented"), "400 NotImplemented no"),
        (xml(plain), "the store answered with something else than a list of versions"),
    ] {
        let endpoint = serve(move |request| {
            assert_eq!(request.method, "GET");
            reply.clone()
        });
        let result = store(&endpoint.await).delete_all_versions("x").await.expect("an answer");
        assert_eq!(result, Deleted::CannotList { reason: wanted.to_owned() });
    }
}

#[tokio::test]
async fn a_refusal_without_a_lock_names_the_rights_and_no_secret() {
    let list = "<ListVersionsResult><Version><Key>p/x</Key><VersionId>1</VersionId></Version></ListVersionsResult>";
    let endpoint = serve(|request| {
        let is_list = request.query("versions").is_some();
        if is_list { xml(list) } else { refusal(403, "AccessDenied") }
    });
    let error = store(&endpoint.await).delete_all_versions("x").await.expect_err("no right");
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("403 AccessDenied no; the credentials need s3:DeleteObjectVersion") && !text.contains("hidden"),
        "{text}"
    );
    // Nobody listens: the reason does not contain the address.
    let error = store("http://127.0.0.1:1").delete_all_versions("x").await.expect_err("no server");
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn the_address_follows_the_settings_of_the_store() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let endpoint = serve(move |request| {
        log.lock().expect("no panic").push(request.target.split('?').next().unwrap_or_default().to_owned());
        xml("<ListVersionsResult></ListVersionsResult>")
    });
    let endpoint = endpoint.await;
    let hosted = [("aws_virtual_hosted_style_request", "true"), ("aws_endpoint", endpoint.as_str())];
    let specific = [("aws_endpoint", "http://127.0.0.1:1"), ("aws_endpoint_url_s3", endpoint.as_str())];
    for settings in [&hosted, &specific] {
        let store = store_with(settings).expect("a store");
        assert_eq!(store.delete_all_versions("x").await.expect("an answer"), Deleted::Nothing);
    }
    assert_eq!(*seen.lock().expect("no panic"), ["/", "/b"]);
    let express = store_with(&[("aws_s3_express", "true")]);
    assert!(express.is_err(), "the bucket's name has no zone");
}

#[test]
fn settings_that_object_store_panics_on_are_refused() {
    for settings in [
        [("aws_endpoint", "127.0.0.1:9000")],
        [("aws_endpoint", "localhost:9000")],
        [("aws_endpoint", "http://user:hidden@localhost:9000")],
        [("aws_access_key_id", "key\n")],
        [("aws_session_token", "a b")],
    ] {
        let error = store_with(&settings).expect_err("unusable settings").to_string();
        assert!(error.starts_with("cannot open the archive at s3://b/p: ") && !error.contains("hidden"), "{error}");
    }
}

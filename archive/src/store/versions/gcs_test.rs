//! Google's generations, against a server with holds, retention and soft delete.

use super::super::credentials::Credentials;
use super::super::{Address, Store, StoreError};
use super::scripted::{Reply, Request, serve};
use super::{Deleted, Lock, LockMode};

const NAME: &str = "p/data/x";

/// A bucket: generations as JSON, without their name.
#[derive(Default)]
struct Service {
    objects: Vec<(u64, &'static str)>,
    soft: Vec<u64>,
    soft_delete: bool,
    /// Whether generations with further fields are locked.
    locked: bool,
}

impl Service {
    fn reply(&mut self, request: &Request) -> Reply {
        assert!(request.headers.contains("authorization: bearer token"), "{}", request.headers);
        let ok = |body: String| (200, "content-type: application/json\r\n".to_owned(), body);
        let item = |generation: u64, more: &str| format!(r#"{{"name":"{NAME}","generation":"{generation}"{more}}}"#);
        if request.method == "GET" {
            assert_eq!(request.query("prefix").as_deref(), Some(NAME));
            if request.query("softDeleted").is_some() {
                let more = r#","softDeleteTime":"2026-01-01T00:00:00Z","hardDeleteTime":"2026-01-08T00:00:00.123Z""#;
                let items = self.soft.iter().map(|generation| item(*generation, more)).collect::<Vec<_>>().join(",");
                return ok(format!(r#"{{"items":[{items}]}}"#));
            }
            assert_eq!(request.query("versions").as_deref(), Some("true"));
            // One object per page.
            let from = request.query("pageToken").map_or(0, |token| token.parse::<usize>().expect("a number"));
            let next = if from + 1 < self.objects.len() {
                format!(r#","nextPageToken":"{}""#, from + 1)
            } else {
                String::new()
            };
            let other = r#"{"name":"p/data/x2","generation":"9"}"#;
            let items = self
                .objects
                .get(from)
                .map_or(String::new(), |(generation, more)| format!("{},", item(*generation, more)));
            return ok(format!(r#"{{"items":[{items}{other}]{next}}}"#));
        }
        assert!(request.target.starts_with("/storage/v1/b/b/o/p%2Fdata%2Fx?generation="), "{}", request.target);
        let generation = request.query("generation").and_then(|text| text.parse::<u64>().ok()).expect("a generation");
        let Some(at) = self.objects.iter().position(|object| object.0 == generation) else {
            return refusal(404, "notFound");
        };
        if self.locked && self.objects.get(at).is_some_and(|(_, more)| !more.is_empty()) {
            return refusal(403, "retentionPolicyNotMet");
        }
        self.objects.remove(at);
        if self.soft_delete {
            self.soft.push(generation);
        }
        (204, String::new(), String::new())
    }
}

fn refusal(status: u16, reason: &str) -> Reply {
    let body = format!(r#"{{"error":{{"code":{status},"message":"no","errors":[{{"reason":"{reason}"}}]}}}}"#);
    (status, String::new(), body)
}

fn store(endpoint: &str) -> Store {
    let settings = [("google_base_url", endpoint), ("google_bearer_token", "token")];
    let address = "gs://b/p".parse::<Address>().expect("an address");
    Store::open(&address, Some(&Credentials::of(&settings))).expect("a store")
}

async fn deleted(mut service: Service) -> Result<Deleted, StoreError> {
    let endpoint = serve(move |request| service.reply(request)).await;
    store(&endpoint).delete_all_versions("data/x").await
}

#[tokio::test]
async fn all_generations_are_deleted() {
    let objects = vec![(1, ""), (2, ""), (3, "")];
    assert_eq!(
        deleted(Service { objects, ..Service::default() }).await.expect("deleted"),
        Deleted::All { versions: 3 }
    );
    assert_eq!(deleted(Service::default()).await.expect("nothing"), Deleted::Nothing);
}

#[tokio::test]
async fn soft_delete_is_reported_with_its_end() {
    let until = chrono::DateTime::parse_from_rfc3339("2026-01-08T00:00:00.123Z").expect("a date").to_utc();
    let service = Service { objects: vec![(1, ""), (2, "")], soft_delete: true, ..Service::default() };
    assert_eq!(deleted(service).await.expect("deleted"), Deleted::Recoverable { versions: 2, until: Some(until) });
}

#[tokio::test]
async fn a_lock_is_named_with_its_date() {
    let until = |text| Some(chrono::DateTime::parse_from_rfc3339(text).expect("a date").to_utc());
    for (more, mode, until) in [
        (r#","temporaryHold":true"#, LockMode::Hold, None),
        (r#","eventBasedHold":true,"retentionExpirationTime":"2035-01-01T00:00:00Z""#, LockMode::Hold, None),
        (r#","retentionExpirationTime":"2035-01-01T00:00:00Z""#, LockMode::Policy, until("2035-01-01T00:00:00Z")),
        (
            r#","retention":{"mode":"Locked","retainUntilTime":"2035-02-01T00:00:00Z"},"retentionExpirationTime":"2035-01-01T00:00:00Z""#,
            LockMode::Compliance,
            until("2035-02-01T00:00:00Z"),
        ),
        (
            r#","retention":{"mode":"Unlocked","retainUntilTime":"2035-02-01T00:00:00Z"}"#,
            LockMode::Governance,
            until("2035-02-01T00:00:00Z"),
        ),
    ] {
        let service = Service { objects: vec![(1, ""), (2, more)], locked: true, ..Service::default() };
        let lock = Lock { mode, until };
        assert_eq!(deleted(service).await.expect("an answer"), Deleted::Locked { versions: 1, lock });
    }
}

#[tokio::test]
async fn a_refusal_and_a_store_without_versions_are_reported() {
    let endpoint = serve(|_| refusal(403, "forbidden")).await;
    let error = store(&endpoint).delete_all_versions("data/x").await.expect_err("no right");
    assert!(error.to_string().contains("403 forbidden no; the credentials need storage.objects.list"), "{error}");
    let endpoint = serve(|_| refusal(501, "notImplemented")).await;
    let result = store(&endpoint).delete_all_versions("data/x").await.expect("an answer");
    assert_eq!(result, Deleted::CannotList { reason: "501 notImplemented no".to_owned() });
}

//! Tests the layer of an axum service against a real node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use piperoll_client::testing::{RecordingFault, check_routes};
use piperoll_client::{
    AuditContext, Caller, Category, Changes, DeliveryPolicy, ProxyHeader, RecordLayer, Recorder, TrustedProxies,
};
use piperoll_tests::Cluster;
use serde_json::json;
use tower::ServiceExt as _;

use super::{entries, one_node, socket};

type Ran = Arc<AtomicUsize>;

/// Builds a service with every kind of route.
fn service(recorder: Recorder, ran: &Ran) -> Router {
    async fn update(
        Path(id): Path<String>,
        Extension(activity): Extension<AuditContext>,
        State(ran): State<Ran>,
    ) -> &'static str {
        ran.fetch_add(1, Ordering::Relaxed);
        let changes = Changes::between(&json!({"quota": 5, "name": "a"}), &json!({"quota": 10, "name": "a"})).unwrap();
        activity
            .action(Category::Config, "domain.update")
            .caller(Caller { user: "alice".to_owned(), impersonator: "root".to_owned(), ..Caller::default() })
            .update(|entry| entry.entity("domain", id).changes(changes));
        "done"
    }
    async fn slow(State(ran): State<Ran>) -> &'static str {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ran.fetch_add(1, Ordering::Relaxed);
        "done"
    }
    async fn view(Extension(activity): Extension<AuditContext>) -> &'static str {
        activity.action(Category::Audit, "report.view");
        "a report"
    }
    async fn wrong_words(Extension(activity): Extension<AuditContext>) {
        activity.update(|entry| entry.target("t".repeat(5_000)));
    }
    let proxies = TrustedProxies::new(["127.0.0.0/8".parse().unwrap()], ProxyHeader::XForwardedFor);
    Router::new()
        .route("/domains/{id}", put(update))
        .route("/silent", post(async || "done"))
        .route("/slow", post(slow))
        .route("/panic", post(async || -> &'static str { panic!("on purpose") }))
        .route("/fails", post(async || StatusCode::CONFLICT))
        .route("/wrong-words", post(wrong_words))
        .route("/denied", get(async || StatusCode::FORBIDDEN))
        .route("/view", get(view))
        .route("/plain", get(async || "nothing to tell"))
        .with_state(Arc::clone(ran))
        .layer(RecordLayer::new(recorder).category(Category::Config).proxies(proxies))
}

struct Served {
    url: String,
    ran: Ran,
    client: reqwest::Client,
}

fn client() -> reqwest::Client {
    // An error means that another test has already installed the provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn serve(recorder: Recorder) -> Served {
    let ran = Ran::default();
    let app = service(recorder, &ran).into_make_service_with_connect_info::<std::net::SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let client = client();
    Served { url, ran, client }
}

impl Served {
    async fn ask(&self, method: Method, path: &str) -> (u16, String) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.header("x-forwarded-for", "1.1.1.1, 192.0.2.7").header("x-request-id", "req-1");
        let answer = request.send().await;
        match answer {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }
}

fn recorder(cluster: &Cluster, policy: DeliveryPolicy, folder: Option<&str>) -> Recorder {
    let mut builder = Recorder::builder(&socket(cluster)).unwrap().policy_for_all(policy);
    if let Some(folder) = folder {
        builder = builder.spool(&cluster.dir.path().join(folder));
    }
    builder.deadline(Duration::from_secs(2)).open().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_and_every_denial_is_one_entry() {
    let cluster = one_node().await;
    let recorder = recorder(&cluster, DeliveryPolicy::Spool, Some("spool"));
    let app = serve(recorder.clone()).await;
    for (method, path, status) in [
        (Method::PUT, "/domains/example.org", 200),
        (Method::POST, "/silent?password=hunter2", 200),
        (Method::POST, "/panic", 0),
        (Method::POST, "/fails", 409),
        (Method::POST, "/wrong-words", 200),
        (Method::DELETE, "/nowhere", 404),
        (Method::GET, "/denied", 403),
        (Method::GET, "/view", 200),
        (Method::GET, "/plain", 200),
    ] {
        assert_eq!(app.ask(method, path).await.0, status, "{path}");
    }
    // If a client hangs up, its operation is still carried out and recorded.
    let short = app.client.post(format!("{}/slow", app.url)).timeout(Duration::from_millis(50)).send().await;
    assert!(short.is_err());
    while app.ran.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(recorder.flush(Duration::from_secs(20)).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let log = entries(&cluster, "-category:log");
    let seen: Vec<_> = log
        .iter()
        .map(|e| {
            let text = |name: &str| e[name].as_str().unwrap_or("-").to_owned();
            (text("path"), text("action"), text("outcome"), text("reason"))
        })
        .collect();
    let expected = [
        ("/domains/example.org", "domain.update", "success", "-"),
        ("/silent", "http.post", "success", "-"),
        ("/panic", "http.post", "failure", "panic"),
        ("/fails", "http.post", "failure", "http_409"),
        ("/wrong-words", "http.post", "success", "-"),
        ("/nowhere", "http.delete", "failure", "http_404"),
        ("/denied", "http.get", "denied", "http_403"),
        ("/view", "report.view", "success", "-"),
        ("/slow", "http.post", "success", "-"),
    ];
    let expected: Vec<_> =
        expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())).to_vec();
    assert_eq!(seen, expected);
    let update = &log[0];
    assert_eq!(update["user"], "alice");
    assert_eq!(update["impersonator"], "root");
    assert_eq!(update["ip_address"], "192.0.2.7");
    assert_eq!(update["peer_address"], "127.0.0.1");
    assert_eq!(update["request_id"], "req-1");
    assert_eq!(update["description"], "changed quota from 5 to 10");
    assert_eq!(update["changes"], json!([{"field": "quota", "old": 5, "new": 10}]));
    assert!(update["flags"].to_string().contains("impersonation"), "{update}");
    let refused = log.iter().find(|e| e["path"] == "/wrong-words").unwrap();
    assert!(refused["details"]["handler_words_refused"].as_str().unwrap().contains("`target`"), "{refused}");
    cluster.verify_all();
}

fn of_slow(cluster: &Cluster) -> Vec<serde_json::Value> {
    entries(cluster, "-category:log").into_iter().filter(|entry| entry["path"] == "/slow").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_change_is_recorded_before_it_happens_and_when_it_is_over() {
    let mut cluster = one_node().await;
    let app = serve(recorder(&cluster, DeliveryPolicy::Strict, None)).await;
    assert_eq!(app.ask(Method::PUT, "/domains/one").await.0, 200);
    let log = entries(&cluster, "-category:log");
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!((&log[0]["outcome"], &log[0]["reason"]), (&json!("unknown"), &json!("intent")));
    assert_eq!(log[1]["outcome"], "success");
    assert_eq!(log[1]["details"]["intent"], log[0]["id"]);

    cluster.stop(0);
    let (status, text) = app.ask(Method::PUT, "/domains/two").await;
    assert!(status == 503 && text.contains("nothing was done"), "{status} {text}");
    assert_eq!(app.ran.load(Ordering::Relaxed), 1, "the handler did not run");
    cluster.restart(0).await;

    // The node dies during the operation: only the intent remains, and the response reports this.
    let slow = app.ask(Method::POST, "/slow");
    let kill = async {
        while of_slow(&cluster).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.signal(0, nix::sys::signal::Signal::SIGKILL);
    };
    let ((status, text), ()) = tokio::join!(slow, kill);
    cluster.kill(0);
    assert!(status == 503 && text.contains("the operation finished"), "{status} {text}");
    cluster.restart(0).await;
    let left = of_slow(&cluster);
    assert!(left.len() == 1 && left[0]["outcome"] == "unknown", "{left:?}");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_find_routes_that_they_forgot() {
    let (recorder, captured) = Recorder::in_memory();
    let app = service(recorder, &Ran::default());
    let ok = check_routes::<_, axum::body::Body>(app.clone(), &captured, [(Method::PUT, "/domains/7")]).await;
    assert_eq!(ok, Ok(()));
    let unnamed = check_routes::<_, axum::body::Body>(app.clone(), &captured, [(Method::POST, "/silent")]).await;
    assert!(matches!(unnamed, Err(RecordingFault::Unnamed { .. })), "{unnamed:?}");
    let outside = app.route("/outside", post(async || "done"));
    let forgotten = check_routes::<_, axum::body::Body>(outside, &captured, [(Method::POST, "/outside")]).await;
    assert!(forgotten.unwrap_err().to_string().contains("without an entry"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_cannot_keep_itself_from_being_recorded() {
    let (recorder, captured) = Recorder::in_memory();
    let app = serve(recorder).await;
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", "a".repeat(6_000).parse().unwrap());
    headers.insert("x-request-id", http::HeaderValue::from_bytes(b"\xff\xfe\ttab").unwrap());
    let path = format!("{}/silent{}", app.url, "/x".repeat(3_000));
    app.client.request(Method::from_bytes(b"PURGE-IT").unwrap(), path).headers(headers).send().await.unwrap();
    let entry = captured.entries().pop().unwrap();
    assert_eq!(entry["action"], "http.purgeit");
    assert_eq!(entry["details"]["cut"], json!(["path", "user_agent"]));
    assert_eq!(entry["user_agent"].as_str().unwrap().len(), 512);
}

/// Tests the layer's options that were added for the aggregator, and that any other service can use too.
#[tokio::test(flavor = "multi_thread")]
async fn reads_are_recorded_on_request_and_strangers_are_counted() {
    let (recorder, captured) = Recorder::in_memory();
    let guard = |Extension(activity): Extension<AuditContext>, request: Request, next: Next| async move {
        match request.uri().path() {
            "/known" => {
                activity.skip_on_success();
                StatusCode::UNAUTHORIZED.into_response()
            }
            "/strange" => {
                activity.reject("no_credentials");
                StatusCode::UNAUTHORIZED.into_response()
            }
            _ => next.run(request).await,
        }
    };
    let quiet = async |Extension(activity): Extension<AuditContext>| {
        activity.skip_on_success();
    };
    // The counter is 1 once `slow` has begun and 2 once it is done.
    let ran = Ran::default();
    let slow = async |State(ran): State<Ran>| {
        ran.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        ran.fetch_add(1, Ordering::Relaxed);
    };
    let inner = Router::new()
        .route("/plain", get(async || "told"))
        .route("/strange", get(async || "told"))
        .route("/known", get(async || "told"))
        .route("/quiet", get(quiet).post(quiet))
        .route("/slow", get(slow))
        .with_state(Arc::clone(&ran))
        .layer(RecordLayer::new(recorder.clone()))
        .layer(from_fn(guard));
    let layer = RecordLayer::new(recorder.clone()).category(Category::Audit).record_intents(false).record_reads(true);
    let app = Router::new().nest("/api", inner.layer(layer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api", listener.local_addr().unwrap());
    let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let client = client();
    let ask = async |method: Method, path: &str| client.request(method, format!("{url}{path}")).send().await.unwrap();
    for path in ["/plain", "/quiet"] {
        assert_eq!(ask(Method::GET, path).await.status(), 200);
    }
    assert_eq!(ask(Method::POST, "/quiet").await.status(), 200);
    let hung_up = tokio::spawn(client.get(format!("{url}/slow")).send());
    while ran.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hung_up.abort();
    for _ in 0..5 {
        assert_eq!(ask(Method::GET, "/strange").await.status(), 401);
        assert_eq!(ask(Method::GET, "/known").await.status(), 401);
    }
    // `close` waits until requests in progress have ended and counts are recorded.
    assert!(recorder.close(Duration::from_secs(20)).await);
    assert_eq!(ran.load(Ordering::Relaxed), 2);
    let mut seen: Vec<_> = captured
        .entries()
        .iter()
        .map(|e| {
            [&e["action"], &e["path"], &e["outcome"]].map(|value| value.as_str().unwrap_or("-").to_owned()).join(" ")
        })
        .collect();
    seen.sort();
    let expected = [
        "http.get /api/plain success",
        "http.get /api/slow success",
        "http.get /api/strange denied",
        "http.post /api/quiet success",
        "http.refused_repeatedly - denied",
    ];
    assert_eq!(seen, expected, "each once, and what only reads and says so not at all");
    let counted = captured.entries().into_iter().find(|e| e["action"] == "http.refused_repeatedly").unwrap();
    assert_eq!(counted["details"]["counts"]["refused"], 4);
    assert_eq!((&counted["ip_address"], &counted["reason"]), (&json!("127.0.0.1"), &json!("no_credentials")));
}

/// Rejected requests that arrive while the node is down are all in the count that is recorded later.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_counted_while_nothing_can_be_recorded() {
    let mut cluster = one_node().await;
    let builder = Recorder::builder(&socket(&cluster)).unwrap().policy_for_all(DeliveryPolicy::Strict);
    let recorder = builder.deadline(Duration::from_millis(300)).open().unwrap();
    let refuse = async |Extension(activity): Extension<AuditContext>| {
        activity.reject("no_credentials");
        StatusCode::TOO_MANY_REQUESTS
    };
    let layer = RecordLayer::new(recorder.clone()).category(Category::Audit).record_intents(false);
    let app = Router::new().route("/strange", get(refuse)).layer(layer);
    cluster.stop(0);
    for _ in 0..4 {
        let request = Request::get("/strange").body(axum::body::Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 429, "no is no");
    }
    cluster.restart(0).await;
    assert!(recorder.close(Duration::from_secs(20)).await);
    let log = entries(&cluster, "category:audit");
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!((&log[0]["action"], &log[0]["outcome"]), (&json!("http.refused_repeatedly"), &json!("denied")));
    assert_eq!(log[0]["details"]["counts"]["refused"], 4);
    assert!(log[0].get("ip_address").is_none_or(serde_json::Value::is_null), "nobody knows where from: {}", log[0]);
    cluster.verify_all();
}

//! Tests sessions, one-time links, rate limits, and the headers that browsers receive.

use std::time::Duration;

use piperoll_protocol::access::Role;
use piperoll_tests::{Cluster, entry};
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Client, Response};
use serde_json::{Value, json};

async fn sign_in(client: &Client, cluster: &Cluster, body: Value) -> Response {
    client.post(format!("{}/api/v1/session", cluster.url)).json(&body).send().await.unwrap()
}

/// Returns the cookie of a response in the form in which a browser sends it back.
fn cookie(answer: &Response) -> String {
    let set = answer.headers()[SET_COOKIE].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

async fn status(client: &Client, cluster: &Cluster, path: &str, cookie: &str) -> (u16, String) {
    let answer = client.get(format!("{}{path}", cluster.url)).header(COOKIE, cookie).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_as_good_as_its_token_and_no_longer() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[entry("alice", "auth.login"), entry("bob", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let client = cluster.browser_like();
    let token = cluster.limited_token("kim", Role::Viewer, "user:alice");
    let answer = sign_in(&client, &cluster, json!({ "token": token })).await;
    assert_eq!(answer.status(), 201);
    let set = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    let (secret, flags) = set.split_once("; ").unwrap();
    assert!(secret.starts_with("__Host-piperoll=") && secret.len() > 50, "{set}");
    let mut flags: Vec<&str> = flags.split("; ").collect();
    flags.sort_unstable();
    assert_eq!(flags, ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"]);
    let kim = cookie(&answer);
    let info: Value = answer.json().await.unwrap();
    assert_eq!(
        (&info["name"], &info["permissions"], &info["limited_to"], &info["session"]["idle_seconds"]),
        (&json!("kim"), &json!(["audit.view"]), &json!("user:alice"), &json!(900))
    );

    // The session has the same identity and the same scope limit as its token.
    let (code, page) = status(&client, &cluster, "/api/v1/audit-log?filter=node:mx1&from=1d", &kim).await;
    assert!(code == 200 && page.contains("\"limited_to\":\"user:alice\"") && !page.contains("bob"), "{page}");
    assert_eq!(status(&client, &cluster, "/api/v1/tokens", &kim).await.0, 403);
    // Send an unknown cookie, an empty one, and an invalid one next to another cookie.
    for wrong in ["__Host-piperoll=AAAA", "__Host-piperoll=", "piperoll=x; __Host-piperoll=\u{7f}"] {
        let refused =
            client.get(format!("{}/api/v1/audit-log", cluster.url)).header(COOKIE, wrong.trim_end_matches('\u{7f}'));
        assert_eq!(refused.send().await.unwrap().status(), 401, "{wrong}");
    }
    // Revoking the token ends the session and its tail.
    let mut tail = client
        .get(format!("{}/api/v1/audit-log/tail?filter=node:mx1", cluster.url))
        .header(COOKIE, &kim)
        .send()
        .await
        .unwrap();
    assert_eq!(tail.status(), 200);
    let revoked = cluster.send(reqwest::Method::DELETE, "/api/v1/tokens/kim", Some(&cluster.token), None).await;
    assert_eq!(revoked.status, 204);
    let mut text = String::new();
    while let Some(chunk) = tail.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.contains("event: ended"), "{text}");
    let (code, words) = status(&client, &cluster, "/api/v1/audit-log", &kim).await;
    assert!(code == 401 && words.contains("token_unknown"), "{words}");

    // Signing out ends the session for everyone who has its cookie.
    let answer = sign_in(&client, &cluster, json!({ "token": cluster.token })).await;
    let tester = cookie(&answer);
    let out = client.delete(format!("{}/api/v1/session", cluster.url)).header(COOKIE, &tester).send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert!(out.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    let (code, words) = status(&client, &cluster, "/api/v1/audit-log", &tester).await;
    assert!(code == 401 && words.contains("session_unknown"), "{words}");
    for (body, code) in [
        (json!({ "token": "prl_no" }), 401),
        (json!({ "link": "no" }), 401),
        (json!({}), 401),
        (json!({ "tokn": 1 }), 400),
        (json!({ "token": "x".repeat(9_000) }), 413),
    ] {
        assert_eq!(sign_in(&client, &cluster, body.clone()).await.status(), code, "{body}");
    }
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_signs_in_and_its_session_needs_its_role() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let folder = cluster.authority().add_user(&"kim".parse().unwrap(), Role::Auditor, Some("user:alice")).unwrap();
    let mut cluster = cluster;
    cluster.run_all().await;
    let mut pem = std::fs::read(folder.join("user.crt")).unwrap();
    pem.extend(std::fs::read(folder.join("user.key")).unwrap());
    let client = cluster.browser_with(reqwest::Identity::from_pem(&pem).unwrap());
    let me: Value = client.get(format!("{}/api/v1/session", cluster.url)).send().await.unwrap().json().await.unwrap();
    assert_eq!((&me["name"], &me["method"], &me["session"]), (&json!("kim"), &json!("certificate"), &json!(null)));
    let answer = sign_in(&client, &cluster, json!({})).await;
    assert_eq!(answer.status(), 201);
    let kim = cookie(&answer);
    let (code, words) = status(&client, &cluster, "/api/v1/session", &kim).await;
    let me: Value = serde_json::from_str(&words).unwrap();
    assert_eq!((code, &me["method"], &me["limited_to"]), (200, &json!("certificate"), &json!("user:alice")));
    assert!(me["session"].is_object());
    // The cookie alone is worthless: the session needs its certificate, which can be revoked.
    let (code, words) = status(&cluster.browser_like(), &cluster, "/api/v1/session", &kim).await;
    assert!(code == 401 && words.contains("was not presented"), "{code}: {words}");
    // The cookie cannot create a sign-in link either; such a link would work without the certificate.
    for cookie in [kim.as_str(), ""] {
        let link =
            client.post(format!("{}/api/v1/session/links", cluster.url)).header(COOKIE, cookie).send().await.unwrap();
        assert_eq!(link.status(), 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_is_told_to_wait() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.configure_aggregator("[rates]\nper_caller = 2\nper_address = 20\n");
    let mut cluster = cluster;
    cluster.run_all().await;
    let client = cluster.browser_like();
    let (one, other) = (cluster.token("one", Role::Viewer, None), cluster.token("other", Role::Viewer, None));
    let mut told = None;
    for _ in 0..60 {
        let answer = client.get(format!("{}/api/v1/filter", cluster.url)).bearer_auth(&one).send().await.unwrap();
        if answer.status() == 429 {
            let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            told = Some((wait, answer.text().await.unwrap()));
            break;
        }
    }
    let (wait, words) = told.expect("never told to wait");
    assert!((1..=2).contains(&wait) && words.contains("too many requests from one"), "{wait}: {words}");
    // Another client at the same address is served, and the limited client is served again after it has waited.
    assert_eq!(cluster.get("/api/v1/filter", Some(&other)).await.status, 200);
    tokio::time::sleep(Duration::from_secs(wait + 1)).await;
    assert_eq!(cluster.get("/api/v1/filter", Some(&one)).await.status, 200);
    // Guessing tokens is stopped long before it could succeed. After that, even a valid token is refused for some time.
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(sign_in(&client, &cluster, json!({ "token": "prl_guess" })).await.status().as_u16());
    }
    assert!(codes.starts_with(&[401; 20]) && codes.ends_with(&[429]), "{codes:?}");
    assert_eq!(sign_in(&client, &cluster, json!({ "token": one })).await.status(), 429);
    // Requests from one address are limited as well.
    let mut told = false;
    for _ in 0..400 {
        told |= client.get(format!("{}/api/v1/filter", cluster.url)).send().await.unwrap().status() == 429;
    }
    assert!(told);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_what_pages_may_do() {
    let cluster = Cluster::start(&["mx1"]).await;
    let client = cluster.browser_like();
    let get = async |path: &str| client.get(format!("{}{path}", cluster.url)).send().await.unwrap();
    for path in ["/", "/nodes", "/statistics", "/exports", "/verify", "/sign-in"] {
        let answer = get(path).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert_eq!(answer.status(), 200);
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ] {
            assert!(policy.split(';').any(|known| known.trim() == rule), "{path}: {rule}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!((header("cache-control"), header("x-frame-options")), ("no-store".to_owned(), "DENY".to_owned()));
        assert_eq!(
            (header("x-content-type-options"), header("referrer-policy")),
            ("nosniff".to_owned(), "no-referrer".to_owned())
        );
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        // Every file that the page names exists, is immutable under its name, and has the content type of its extension.
        let html = answer.text().await.unwrap();
        let files: Vec<&str> = html.split('"').filter(|part| part.starts_with("/ui/")).collect();
        assert!(files.len() > 4, "{html}");
        for file in files {
            let answer = get(file).await;
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(answer.status(), 200, "{file}");
            assert_eq!(header("cache-control"), "public, max-age=31536000, immutable", "{file}");
            assert_eq!(header("x-content-type-options"), "nosniff");
            let kind = match file.rsplit_once('.').unwrap().1 {
                "js" => "text/javascript; charset=utf-8",
                "css" => "text/css; charset=utf-8",
                _ => "image/svg+xml",
            };
            assert_eq!(header("content-type"), kind);
        }
        assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("style="), "{html}");
    }
    let other = get("/ui/0000000000000000/js/pages/timeline.js").await;
    assert_eq!((other.status().as_u16(), &other.headers()["cache-control"]), (404, &"no-store".parse().unwrap()));
    for path in ["/nothing", "/ui", "/ui/../Cargo.toml", "/sign-in/x"] {
        assert_eq!(get(path).await.status(), 404, "{path}");
    }
    assert_eq!(get("/api/v1/nodes").await.headers()["cache-control"], "no-store");
}

//! Tests signing in and out, by token and by one-time link, and the page after a session has ended.

use piperoll_tests::{Cluster, entry};
use serde_json::json;

use super::driver::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_with_a_token_and_ends_by_itself() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    cluster.configure_aggregator("[session]\nidle_seconds = 6\n");
    let mut cluster = cluster;
    cluster.run_all().await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::open(&cluster).await else { return };

    // A user who is not signed in is asked to sign in, and then returns to the requested page.
    browser.go("/?filter=user:alice").await;
    browser.says("h1", "Sign in to Piperoll").await;
    browser.is_accessible("sign-in").await;
    browser.shot("sign-in").await;
    browser.write("#token", "prl_nonsense").await;
    browser.press("form", "Sign in").await;
    browser.says("#sign-in-error", "unknown or revoked token").await;
    browser.is_accessible("a refused sign-in").await;
    browser.write("#token", &cluster.token).await;
    browser.press("form", "Sign in").await;
    browser.until("back", async || browser.address().await == "/?filter=user:alice").await;
    browser.says("tbody tr[data-entry]", "alice").await;

    // Scripts cannot read the cookie, and the page stores no secrets.
    let kept = browser
        .js("return [document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage)].join()", json!([]))
        .await;
    assert!(!kept.as_str().unwrap().contains("prl_") && kept.as_str().unwrap().starts_with(','), "{kept}");

    // The page warns before the session ends, extends it on request, and keeps the rows visible after it has expired.
    browser.says("dialog", "You will be signed out in").await;
    browser.is_accessible("a session that ends soon").await;
    browser.press("dialog", "Stay signed in").await;
    browser.until("no dialog", async || browser.texts("dialog").await.is_empty()).await;
    browser.says("dialog", "Still there?").await;
    browser.says("dialog", "You have been signed out").await;
    assert_eq!(browser.places().await.len(), 1);
    browser.press("dialog", "Sign in again").await;
    browser.says("h1", "Sign in to Piperoll").await;

    // A one-time link works once.
    let made = cluster.run(&["browse"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let path = made.stdout.trim().strip_prefix(&cluster.url).unwrap().to_owned();
    browser.go("/healthz").await;
    browser.go(&path).await;
    browser.find("tr[data-entry]").await;
    assert!(!browser.address().await.contains('#'));
    browser.press("#header", "Sign out").await;
    browser.says("h1", "Sign in to Piperoll").await;
    browser.go("/healthz").await;
    browser.go(&path).await;
    browser.says("#sign-in-error", "this sign-in URL has already been used").await;

    // All of these sign-ins and sign-outs are in the log.
    let log =
        cluster.page("filter=action:audit.sign_in,audit.sign_out,audit.sign_in_link&from=1h&order=asc&limit=50").await;
    let told: Vec<String> = log.json()["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!("{} {}", row["entry"]["action"].as_str().unwrap(), row["entry"]["outcome"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            "audit.sign_in denied",
            "audit.sign_in success",
            "audit.sign_in_link success",
            "audit.sign_in success",
            "audit.sign_out success"
        ]
    );
    assert!(!log.text.contains("prl_"));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_asks_before_it_replaces_a_session_and_back_leads_to_this_server() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::open(&cluster).await else { return };
    browser.go("/").await;
    browser.says("h1", "Sign in to Piperoll").await;
    browser.write("#token", &cluster.token).await;
    browser.press("form", "Sign in").await;
    browser.find("tr[data-entry]").await;

    // A browser that is signed in is redirected at once, and never to another server.
    for back in ["/.//evil.example/login", "/x/..//evil.example/a", "//evil.example/", "/\\evil.example"] {
        browser.go(&format!("/sign-in?back={back}")).await;
        browser.find("tr[data-entry]").await;
        let origin = browser.js("return location.origin", json!([])).await;
        assert_eq!(origin, json!(cluster.url), "{back}");
    }
    // A scheme without slashes is ignored: the rest is treated as a path on this server, and this path does not exist.
    browser.go("/sign-in?back=https:evil.example").await;
    browser.says("body", "not found: /evil.example").await;

    // Another user's link does not replace the session without confirmation.
    let other = cluster.token("other", piperoll_protocol::access::Role::Viewer, None);
    let made = cluster.command(&["browse"]).env("PIPEROLL_TOKEN", &other).output().unwrap();
    let link = String::from_utf8(made.stdout).unwrap();
    let path = link.trim().strip_prefix(&cluster.url).unwrap().to_owned();
    browser.go("/healthz").await;
    browser.go(&path).await;
    browser.says("h1", "Sign in with this link?").await;
    browser.is_accessible("a link that would replace a session").await;
    browser.shot("link-asks").await;
    browser.press(".sign-in", "Stay signed in as tester").await;
    browser.find("tr[data-entry]").await;
    let name = browser
        .js("return fetch('/api/v1/session').then((answer) => answer.json()).then((me) => me.name)", json!([]))
        .await;
    assert_eq!(name, json!("tester"));
    browser.go("/healthz").await;
    browser.go(&path).await;
    browser.press(".sign-in", "Sign out and use the link").await;
    browser.find("tr[data-entry]").await;
    let name = browser
        .js("return fetch('/api/v1/session').then((answer) => answer.json()).then((me) => me.name)", json!([]))
        .await;
    assert_eq!(name, json!("other"));
    browser.close().await;
}

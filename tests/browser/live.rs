//! Tests the pages while nodes die, return, and are tampered with.

use fantoccini::key::Key;
use piperoll_tests::{Cluster, edit, entry};
use serde_json::json;

use super::driver::Browser;

const EVERYBODY: &str = "/?filter=node:mx1,mx2,mx3%20-category:log";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_named_at_once_and_greeted_when_it_returns() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2", "mx3"], 200).await;
    for index in 0..3 {
        cluster.append(index, &[entry("alice", "auth.login"), entry("bob", "auth.login")]).await;
    }
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::signed_in(&cluster, &cluster.token).await else { return };
    browser.go(EVERYBODY).await;
    browser.until("six rows", async || browser.places().await.len() == 6).await;

    // Live mode: new rows appear at the top by themselves. While an entry is open, new rows are held back and only counted.
    browser.keys("l").await;
    browser.says(".filter-toolbar .actions", "Live, complete up to").await;
    cluster.append(0, &[entry("carol", "mail.release")]).await;
    browser.says("tbody tr[data-entry]", "carol").await;
    browser.keys(&Key::Enter.to_string()).await;
    browser.says(".drawer", "Summary").await;
    cluster.append(1, &[entry("dave", "mail.release"), entry("dave", "mail.release")]).await;
    browser.says(".new-entries", "2 new entries").await;
    browser.is_accessible("live").await;
    browser.keys(&Key::Escape.to_string()).await;
    browser.keys(".").await;
    browser.says("tbody tr[data-entry]", "dave").await;
    assert!(browser.text(".new-entries").await.is_empty());
    assert_eq!(browser.places().await.len(), 9);

    // A node dies: the page shows a line among the rows, and a banner that says how many entries a witness has seen.
    cluster.kill(2);
    browser.says("tr.status-row", "mx3 has been missing since").await;
    browser.says(".banner.missing", "1 of 3 nodes missing").await;
    browser.says(".banner.missing", "mx3 is unreachable, last seen").await;
    browser.says(".banner.missing", "A witness has seen 3 entries of its log").await;
    assert!(browser.texts(".banner.missing button").await.iter().all(|words| !words.contains("Close")));
    browser.is_accessible("a missing node").await;
    cluster.append(0, &[entry("erin", "mail.release")]).await;
    browser.says("tbody tr[data-entry]", "erin").await;
    browser.shot("missing").await;

    // After a reload every number is marked as a lower bound, and the chart is hatched.
    browser.keys("l").await;
    browser.go(EVERYBODY).await;
    browser.says(".banner.missing", "mx3").await;
    browser.says(".histogram .legend", "mx3 not counted: every number is a lower bound").await;
    browser.says(".facets .missing", "mx3").await;
    browser.says(".pagination .result-summary", "2/3 nodes").await;
    browser.go("/nodes").await;
    browser.says("table.nodes", "MISSING").await;
    browser.is_accessible("nodes with a missing one").await;
    browser.shot("nodes").await;

    // The node returns while live mode is on.
    browser.go(&format!("{EVERYBODY}&live=1")).await;
    browser.says(".banner.missing", "mx3").await;
    cluster.restart(2).await;
    browser.says("tr.status-row", "mx3 is back").await;
    browser.until("no banner", async || browser.texts(".banner").await.is_empty()).await;

    // All nodes are down: the old rows stay, grayed out, and the page names all nodes.
    browser.go(EVERYBODY).await;
    browser.until("ten rows", async || browser.places().await.len() == 10).await;
    for index in 0..3 {
        cluster.kill(index);
    }
    browser.press(".filter-bar", "Search").await;
    browser.says(".pagination", "no node answered; showing stale results").await;
    browser.says(".banner.missing", "3 of 3 nodes missing").await;
    assert_eq!(
        (browser.places().await.len(), browser.js("return document.body.className", json!([])).await),
        (10, json!("stale"))
    );
    browser.is_accessible("everybody is missing").await;
    browser.close().await;
    for index in 0..3 {
        cluster.restart(index).await;
    }
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_row_cannot_be_overlooked_and_is_acknowledged_by_an_entry() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 200).await;
    cluster.append(0, &(0..5).map(|n| entry(&format!("user{n}"), "auth.login")).collect::<Vec<_>>()).await;
    cluster.wait_until_complete().await;
    cluster.stop(0);
    edit(&cluster.database(0), "UPDATE entries SET body = replace(body, 'user3', 'nobod') WHERE seq = 4");
    cluster.restart(0).await;
    let auditor = cluster.token("ada", piperoll_protocol::access::Role::Auditor, None);
    let Some(browser) = Browser::signed_in(&cluster, &auditor).await else { return };
    cluster.wait_until_answered("mx1").await;
    browser.go("/?filter=node:mx1").await;
    browser.says(".banner.violation", "mx1: its answer failed verification").await;
    browser.says("tr.violation", "VIOLATION").await;
    browser.says(".pagination .result-summary", "VIOLATIONS: 1").await;
    browser.is_accessible("a broken row").await;
    browser.shot("broken").await;
    browser.click("tr.violation button.row-link").await;
    browser.click("#tab-proof").await;
    browser.says("#drawer-panel", "The signature is NOT valid").await;
    browser.keys(&Key::Escape.to_string()).await;

    browser.press(".banner.violation", "Acknowledge").await;
    browser.press("dialog", "Acknowledge").await;
    assert_eq!(browser.texts("dialog").await.len(), 1, "without a reason nothing is acknowledged");
    browser.write("dialog textarea", "disk swapped by the night shift").await;
    browser.press("dialog", "Acknowledge").await;
    browser.says(".banner.violation .acknowledged", "Acknowledged by ada").await;
    // The acknowledgement stays visible to all users.
    browser.go("/?filter=node:mx1").await;
    browser.says(".banner.violation .acknowledged", "disk swapped by the night shift").await;
    browser.go("/?filter=action:audit.acknowledge").await;
    browser.says("tbody tr[data-entry]", "audit.acknowledge").await;
    browser.close().await;
}

/// Replaces a node's log by another one: the page shows the new log, a user accepts exactly this log, and for earlier ranges the
/// page reports that rows are not in the accepted log.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_took_the_place_of_another_is_accepted_and_named() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2"], 200).await;
    for index in 0..2 {
        cluster.append(index, &[entry("alice", "auth.login"), entry("bob", "auth.login")]).await;
    }
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::signed_in(&cluster, &cluster.token).await else { return };
    browser.go("/nodes").await;
    browser.says("table.nodes", "3 entries").await;
    cluster.stop(0);
    assert_eq!(cluster.on_node(0, &["new-generation", "--reason", "a test"]).code, 0);
    cluster.restart(0).await;
    let seen = async || cluster.get("/api/v1/nodes", Some(&cluster.token)).await.text.contains("\"rollback\"");
    browser.until("the witness has looked", seen).await;
    browser.go("/nodes").await;
    browser.says("table.nodes", "rollback").await;
    browser.press("table.nodes", "Accept").await;
    browser.says("dialog", "entries. This log, or an extension of it, becomes the node's history").await;
    browser.is_accessible("accepting a history").await;
    browser.shot("accept").await;
    browser.keys("the disk died").await;
    browser.press("dialog", "Accept").await;
    browser.until("no alarm", async || !browser.text("table.nodes").await.contains("rollback")).await;
    // While the archived log's folder is next to the new log, its rows are read; without it the page reports the missing rows.
    let is_read = async || cluster.page("filter=node:mx1").await.status_of("mx1") == "ok";
    browser.until("the old log is read", is_read).await;
    let old = std::fs::read_dir(&cluster.nodes[0].folder).unwrap().map(|file| file.unwrap().path());
    let old = old.into_iter().find(|path| path.to_str().unwrap().contains("/data.")).unwrap();
    std::fs::rename(&old, cluster.dir.path().join("elsewhere")).unwrap();
    let gone = async || cluster.page("filter=node:mx1").await.status_of("mx1") == "superseded";
    browser.until("the node cannot read it any more", gone).await;
    browser.go("/?filter=node:mx1").await;
    browser.says(".banner.superseded", "mx1 has replaced the log").await;
    browser.says(".banner.superseded", "are not in the log that was accepted").await;
    browser.is_accessible("an earlier log").await;
    browser.shot("superseded").await;
}

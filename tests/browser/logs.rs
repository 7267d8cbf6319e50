//! Tests that the pages distinguish rows with the same number in two logs of one node, and that they show a finding about a row.

use piperoll_tests::{Cluster, edit, entry, until};
use serde_json::{Value, json};

use crate::driver::Browser;

async fn node(cluster: &Cluster) -> Value {
    let nodes = cluster.get("/api/v1/nodes", Some(&cluster.token)).await.json();
    nodes["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap().clone()
}

async fn verdict(cluster: &Cluster, wanted: &str) -> Value {
    until(wanted, async || Some(node(cluster).await).filter(|node| node["verdict"] == wanted)).await
}

async fn witnessed(cluster: &Cluster) {
    until("witnessed", async || {
        let node = node(cluster).await;
        (node["verdict"] == "ok" && node["unwitnessed"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_two_logs_and_a_finding_are_told_apart() {
    let mut cluster = Cluster::witnessed(&["mx1"], 100).await;
    // The new log begins with two entries by the node itself, but the old log with only one.
    cluster
        .append(0, &[entry("carol", "auth.logout"), entry("carol", "auth.logout"), entry("alice", "auth.login")])
        .await;
    witnessed(&cluster).await;
    cluster.stop(0);
    let begun = cluster.on_node(0, &["new-generation", "--reason", "a test"]);
    let generation = begun.stdout.split_whitespace().nth(1).unwrap().to_owned();
    cluster.restart(0).await;
    let node = until("what it presents", async || {
        Some(node(&cluster).await).filter(|node| !node["alarm"]["presented"].is_null())
    })
    .await;
    assert_eq!(node["alarm"]["presented"]["generation"], generation.as_str());
    let accept = ["nodes", "accept", "mx1", "--new-generation", &generation, "--reason", "a test"];
    assert_eq!(cluster.run(&accept).code, 0);
    cluster.append(0, &[entry("bob", "auth.login")]).await;
    witnessed(&cluster).await;
    until("both logs are read", async || {
        let page = cluster.page("filter=node:mx1%20action:auth.login&from=1h").await.json();
        (page["count"] == 2 && page["complete"] == true).then_some(())
    })
    .await;

    let Some(browser) = Browser::signed_in(&cluster, &cluster.token).await else { return };
    browser.go("/?filter=node:mx1%20action:auth.login&from=1h&order=desc").await;
    browser.find("tr[data-entry]").await;
    let places = browser.places().await;
    assert_eq!((places.len(), &places[0]), (2, &places[1]), "two rows of the same number");
    for (row, user, other) in [(0, "bob", "alice"), (1, "alice", "bob")] {
        let open = "document.querySelectorAll('tr[data-entry] button.row-link')[arguments[0]].click()";
        browser.js(open, json!([row])).await;
        browser.click("#tab-raw").await;
        browser.says("#drawer-panel", &format!("\"user\":\"{user}\"")).await;
        assert!(!browser.text("#drawer-panel").await.contains(other));
        assert_eq!(browser.address().await.contains("%40"), user == "alice", "{}", browser.address().await);
        browser.click("#tab-proof").await;
        browser.press("#drawer-panel", "Download proof").await;
        browser
            .until("a proof of its own log", async || {
                let is_present = browser.text("pre.proof").await.contains(&generation);
                !browser.text("pre.proof").await.is_empty() && is_present == (user == "bob")
            })
            .await;
    }
    browser.says("#drawer-panel", "This entry is in an archived log of its node").await;
    browser.is_accessible("a row of an earlier log").await;
    browser.shot("earlier-log").await;
    // The URL opens the same row even if the row is not on the page.
    let row = browser.address().await.split('&').find(|pair| pair.contains("row=")).unwrap().to_owned();
    browser.go(&format!("/?filter=user:nobody&{}", row.trim_start_matches(['/', '?']))).await;
    browser.click("#tab-raw").await;
    browser.says("#drawer-panel", "\"user\":\"alice\"").await;

    let database = cluster.database(0);
    edit(&database, "UPDATE entries SET body = replace(body, 'bob', 'eve') WHERE body LIKE '%\"user\":\"bob\"%'");
    cluster.page("from=1h&limit=1000").await;
    edit(&database, "UPDATE entries SET body = replace(body, 'eve', 'bob') WHERE body LIKE '%\"user\":\"eve\"%'");
    verdict(&cluster, "row_invalid").await;
    browser.go("/nodes").await;
    browser.says("table.nodes", "failed verification").await;
    browser.is_accessible("a finding").await;
    browser.shot("finding").await;
    browser.press("table.nodes", "Accept").await;
    browser.says("dialog", "Accept the finding about mx1").await;
    browser.says("dialog", "queries that return it keep reporting it").await;
    browser.shot("accept-finding").await;
    browser.keys("a test, put back").await;
    browser.press("dialog", "Accept").await;
    verdict(&cluster, "ok").await;
    assert_eq!(browser.js("return document.querySelectorAll('dialog[open]').length", json!([])).await, 0);
    browser.close().await;
    cluster.verify_all();
}

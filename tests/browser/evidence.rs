//! Tests exporting evidence and verifying it, and that a partial export is labeled as partial.

use piperoll_protocol::access::Role;
use piperoll_tests::{Cluster, entry};

use super::driver::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_leaves_with_a_verified_bundle() {
    let mut cluster = Cluster::witnessed(&["mx1", "mx2", "mx3"], 200).await;
    for index in 0..3 {
        cluster.append(index, &(0..20).map(|n| entry(&format!("user{n}"), "auth.login")).collect::<Vec<_>>()).await;
    }
    cluster.wait_until_complete().await;
    let auditor = cluster.token("ada", Role::Auditor, None);
    let Some(browser) = Browser::signed_in(&cluster, &auditor).await else { return };

    // The dialog shows which entries will be exported, and exports nothing without a reason.
    browser.go("/?filter=user:user7").await;
    browser.until("three rows", async || browser.places().await.len() == 3).await;
    browser.press(".filter-toolbar", "Export").await;
    browser.says("dialog", "3 entries will be exported").await;
    browser.says("dialog", "mx1: 1, mx2: 1, mx3: 1").await;
    browser.press("dialog .button-group", "Export").await;
    browser.says("dialog", "State a reason").await;
    browser.write("dialog textarea", "case 17").await;
    browser.press("dialog .button-group", "Export").await;
    let bundle = browser.download(".tar").await;
    browser.says("dialog", "SHA-256").await;
    let trust = cluster.dir.path().join("trust.toml");
    let made = std::process::Command::new(piperoll_tests::piperoll())
        .args(["cluster", "trust"])
        .arg(cluster.authority_dir())
        .output()
        .unwrap();
    std::fs::write(&trust, made.stdout).unwrap();
    let check = ["verify-bundle", bundle.to_str().unwrap(), "--trust", trust.to_str().unwrap()];
    let checked = cluster.run(&check);
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);

    // The server verifies the bundle with the verifier's code, and the page says that the server did so.
    browser.go("/verify").await;
    browser.says("main", "by the same code as the offline verifier").await;
    browser.is_accessible("verify").await;
    browser.find("input[type=file]").await.send_keys(bundle.to_str().unwrap()).await.unwrap();
    browser.says(".verdict", "VERIFIED").await;
    browser.says(".verdict", "requested by ada: case 17").await;
    browser.shot("verify").await;
    let mut forged = std::fs::read(&bundle).unwrap();
    let at = forged.windows(5).position(|bytes| bytes == b"user7").unwrap();
    forged[at..at + 5].copy_from_slice(b"user8");
    let forgery = cluster.dir.path().join("forged.tar");
    std::fs::write(&forgery, forged).unwrap();
    browser.find("input[type=file]").await.send_keys(forgery.to_str().unwrap()).await.unwrap();
    browser.says(".verdict", "REFUSED").await;
    browser.press("main", "Verify all entries").await;
    browser.says("main", "all entries verified").await;

    // While a node is missing, an export either fails and names the node, or its result is labeled as partial.
    cluster.kill(2);
    browser.go("/exports").await;
    browser.says("table", "case 17").await;
    browser.write("main input.mono", "user:user7").await;
    browser.press("main", "Export…").await;
    browser.says("dialog", "Missing: mx3").await;
    browser.click("dialog input[value=csv]").await;
    browser.write("dialog textarea", "case 18").await;
    browser.press("dialog .button-group", "Export").await;
    browser.says("dialog", "No file was written: mx3").await;
    browser.click("dialog input[value=partial]").await;
    browser.press("dialog .button-group", "Export").await;
    let part = browser.download("PARTIAL.csv").await;
    browser.says("dialog", "PARTIAL").await;
    assert_eq!(std::fs::read_to_string(part).unwrap().lines().count(), 3);
    browser.click("dialog input[value=ndjson]").await;
    browser.press("dialog .button-group", "Export").await;
    let part = std::fs::read_to_string(browser.download("PARTIAL.ndjson").await).unwrap();
    assert!(part.trim_end().lines().last().unwrap().starts_with("{\"final\":"));
    browser.press("dialog .button-group", "Close").await;
    browser.says("table", "case 18").await;
    browser.is_accessible("exports").await;
    browser.shot("exports").await;
    browser.close().await;
    cluster.restart(2).await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_limited_sees_that_and_nothing_else() {
    let cluster = Cluster::start(&["mx1"]).await;
    cluster.append(0, &[entry("alice", "auth.login"), entry("mallory", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let token = cluster.limited_token("reseller", Role::Viewer, "user:alice");
    let Some(browser) = Browser::signed_in(&cluster, &token).await else { return };
    browser.says(".scope", "Your scope: user:alice").await;
    browser.says(".facets", "alice").await;
    assert_eq!(browser.places().await.len(), 1);
    assert!(!browser.texts(".filter-toolbar .actions button").await.contains(&"Export".to_owned()));
    browser.is_accessible("a limited reader").await;
    // The server derives suggestions only from entries within the client's scope.
    browser.write("input[role=combobox]", "user:").await;
    browser.says(".suggestions", "alice").await;
    for filter in ["user:mallory", "-user:alice", ""] {
        browser.go(&format!("/?filter={filter}")).await;
        browser.says(".pagination .result-summary", "nodes").await;
        assert!(browser.places().await.len() <= 1, "{filter}");
        assert!(
            !browser.text(".entry-table").await.contains("mallory")
                && !browser.text(".facets").await.contains("mallory")
        );
    }
    browser.go("/exports").await;
    browser.says("main", "Your role does not allow exports").await;
    browser.go("/verify").await;
    browser.says("main", "Your role does not allow this").await;
    browser.go("/statistics").await;
    browser.says("main", "alice").await;
    assert!(!browser.text("main").await.contains("mallory"));
    browser.is_accessible("statistics").await;
    browser.close().await;
}

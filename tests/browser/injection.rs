//! Tests that text written into the log by an attacker is shown as plain text everywhere.

use piperoll_tests::Cluster;
use serde_json::{Value, json};

use super::driver::Browser;

/// Texts that would have an effect if they were treated as anything but text.
const HOSTILE: [&str; 9] = [
    "<img src=x onerror=\"window.pwned=1\">",
    "<script>window.pwned=1</script>",
    "\"><svg/onload=window.pwned=1>",
    "javascript:window.pwned=1",
    "{{constructor.constructor('window.pwned=1')()}}",
    "a\u{202e}txt.exe\u{2066}hidden\u{2069}",
    "bell\u{7}esc\u{1b}[31mred\u{0}nul\u{200b}zero",
    "=HYPERLINK(\"http://evil.example\",\"click\")",
    "' OR 1=1 -- \\ \" , * : -user:x",
];

fn entries() -> Vec<String> {
    let mut lines: Vec<String> = HOSTILE
        .iter()
        .map(|text| {
            let entity: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            json!({ "category": "data", "action": "mail.release", "user": entity, "outcome": "failure", "reason": "bad_password",
                "entity_type": "mail", "entity_id": entity, "target": entity, "description": text, "ip_address": entity,
                "user_agent": entity, "session": entity, "request_id": entity, "domain": entity,
                "changes": [{ "field": text, "old": text, "new": { *text: text } }], "details": { *text: [text] } })
            .to_string()
        })
        .collect();
    let long = "A".repeat(31_000);
    lines.push(
        json!({ "category": "data", "action": "mail.release", "user": "long", "outcome": "success",
            "details": { "text": long }, "changes": [{ "field": "body", "old": long }] })
        .to_string(),
    );
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_are_text_everywhere() {
    let cluster = Cluster::witnessed(&["mx1"], 200).await;
    let taken: Vec<String> = {
        let client = piperoll_client::NodeClient::new(&cluster.nodes[0].folder.join("node.sock")).unwrap();
        let lines = entries();
        let report = client.append_lines((lines.join("\n") + "\n").into_bytes(), false).await.unwrap();
        assert_eq!(report.rejected, 0, "{:?}", report.results.iter().find(|r| r.error.is_some()));
        lines
    };
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::signed_in(&cluster, &cluster.token).await else { return };
    browser.go("/?filter=node:mx1%20action:mail.release").await;
    browser.until("all rows", async || browser.places().await.len() == taken.len()).await;
    browser.says(".facets", "onerror").await;
    is_unharmed(&browser, "the timeline").await;
    browser.is_accessible("hostile entries").await;
    browser.shot("hostile").await;
    // No value can reorder or hide the text around it.
    let shown = browser.text("main").await;
    for sign in ['\u{202e}', '\u{2066}', '\u{7}', '\u{1b}', '\u{200b}'] {
        assert!(!shown.contains(sign), "{sign:?} is on the page");
    }
    assert!(shown.contains("\\u{202e}txt.exe"), "{shown}");

    for place in browser.places().await {
        browser.click(&format!("tr[data-entry='{place}'] button.row-link")).await;
        browser.says(".drawer code", &place).await;
        for tab in ["changes", "context", "proof", "raw", "summary"] {
            browser.click(&format!("#tab-{tab}")).await;
            browser.until("a filled tab", async || !browser.text("#drawer-panel").await.is_empty()).await;
        }
        is_unharmed(&browser, &place).await;
        browser.click(".drawer button[aria-label=Close]").await;
    }
    // Every value can be used as a filter, whatever characters it contains, and the filter finds the row with this value.
    for number in 0..taken.len() {
        browser.go("/?filter=node:mx1%20action:mail.release&order=asc").await;
        browser.until("all rows", async || browser.places().await.len() == taken.len()).await;
        let place = browser.places().await[number].clone();
        browser.click(&format!("tr[data-entry='{place}'] td:nth-child(3) button")).await;
        browser.until("its own row", async || browser.places().await == [place.clone()]).await;
        is_unharmed(&browser, &place).await;
    }
    for page in ["/statistics", "/nodes", "/exports"] {
        browser.go(page).await;
        browser.find("main > h1 ~ :is(div, section)").await;
        is_unharmed(&browser, page).await;
    }
    browser.close().await;
    cluster.verify_all();
}

/// Checks that no script ran, no value became an element, no other server was contacted, and nothing is wider than the window.
async fn is_unharmed(browser: &Browser, what: &str) {
    let script = "const own = performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).length; return { pwned: window.pwned ?? null, images: document.images.length, scripts: document.scripts.length, elsewhere: own, wide: document.documentElement.scrollWidth - document.documentElement.clientWidth }";
    let found = browser.js(script, json!([])).await;
    let expected: Value = json!({ "pwned": null, "images": 0, "scripts": 1, "elsewhere": 0, "wide": 0 });
    assert_eq!(found, expected, "{what}");
}

//! Tests the timeline: search, paging, opening and comparing entries, with the mouse and with the keyboard.

use fantoccini::key::Key;
use piperoll_tests::Cluster;
use serde_json::json;

use super::driver::Browser;

/// Returns entries of a small office, which are identical in every run.
fn office(node: usize, count: usize) -> Vec<String> {
    let line = |n: usize| {
        let user = ["alice", "bob", "carol"][n % 3];
        let action = ["auth.login", "mail.release", "domain.update", "auth.logout"][n % 4];
        let outcome = ["success", "success", "failure", "denied", "success"][(n + node) % 5];
        let mut entry = json!({ "category": "data", "action": action, "user": user, "outcome": outcome,
            "ip_address": format!("192.0.2.{}", n % 9), "session": format!("s{}", n % 10),
            "request_id": format!("r{node}-{}", n / 2) });
        if action == "domain.update" {
            entry["entity_type"] = json!("domain");
            entry["entity_id"] = json!(format!("d{}.example", n % 4));
            entry["changes"] =
                json!([{ "field": "quota", "old": 10, "new": 20 }, { "field": "note", "new": "seen <b>" }]);
            entry["description"] = json!("quota of the domain was raised");
        }
        entry.to_string()
    };
    (0..count).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_it_is_found_by_mouse_and_by_keys() {
    let cluster = Cluster::witnessed(&["mx1", "mx2", "mx3"], 200).await;
    for index in 0..3 {
        cluster.append(index, &office(index, 120)).await;
    }
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::signed_in(&cluster, &cluster.token).await else { return };

    // The first page: a hundred rows, newest first, all verified, and no node missing.
    let first = browser.places().await;
    assert_eq!(first.len(), 100);
    browser.says(".pagination .result-summary", "4/4 nodes · 100 verified").await;
    browser.says(".facets", "alice").await;
    assert_eq!(browser.texts(".banner").await, Vec::<String>::new());
    assert_eq!(browser.text(".chips li").await.replace('\n', ""), "not category audit×");
    browser.is_accessible("timeline").await;
    browser.shot("timeline").await;

    // Page forward and back again: both directions show the same rows.
    browser.press(".pagination", "Older").await;
    browser.until("the second page", async || browser.places().await.first() != first.first()).await;
    let second = browser.places().await;
    assert!(second.iter().all(|place| !first.contains(place)));
    browser.press(".pagination", "Newer").await;
    browser.until("the first page again", async || browser.places().await == first).await;

    // The filter text, the chips and the URL always agree. A click on a value adds the value to the filter; an alt-click excludes
    // the value.
    browser.click("tr[data-entry] button.value[title^='Click']:not([data-x])").await;
    browser.until("a node in the address", async || browser.address().await.contains("node%3Amx")).await;
    browser.go("/?filter=user:alice").await;
    browser.says(".chips", "user alice").await;
    browser
        .until("only alice", async || {
            let actors = browser.texts("tr[data-entry] td:nth-child(3)").await;
            !actors.is_empty() && actors.iter().all(|actor| actor == "alice")
        })
        .await;
    let alt_click = "document.querySelector('tr[data-entry] td:nth-child(4) button').dispatchEvent(new MouseEvent('click', { altKey: true, bubbles: true }))";
    let action = browser.text("tr[data-entry] td:nth-child(4)").await;
    browser.js(alt_click, json!([])).await;
    browser.says(".chips", &format!("not action {action}")).await;
    browser
        .until("without it", async || !browser.texts("tr[data-entry] td:nth-child(4)").await.contains(&action))
        .await;
    browser.click(".chips li:nth-child(2) button.remove").await;
    browser.until("one chip", async || browser.address().await == "/?filter=user%3Aalice").await;

    // Alternatives are shown as one chip: a click adds a condition to all of them, and removing the chip keeps the added
    // condition.
    browser.go("/?filter=user:alice%20OR%20user:bob").await;
    browser.says(".chips", "user:alice OR user:bob").await;
    let is_either = async |browser: &Browser| {
        let actors = browser.texts("tr[data-entry] td:nth-child(3)").await;
        let has = |name: &str| actors.iter().any(|actor| actor == name);
        has("alice") && has("bob") && actors.iter().all(|actor| actor == "alice" || actor == "bob")
    };
    browser.until("alice and bob", async || is_either(&browser).await).await;
    browser.js(alt_click, json!([])).await;
    browser.says(".chips", "not action").await;
    browser
        .until("a group in the address", async || browser.address().await.contains("%28user%3Aalice+OR+user%3Abob%29"))
        .await;
    browser.until("alice and bob", async || is_either(&browser).await).await;
    browser.click(".chips li:nth-child(1) button.remove").await;
    browser.until("the other chip", async || browser.texts(".chips li").await.len() == 1).await;
    browser.says(".chips", "not action").await;

    // Suggestions: filter keys, then existing values with their counts.
    browser.write("input[role=combobox]", "acti").await;
    browser.says(".suggestions", "action:").await;
    browser.keys(&format!("{}{}", Key::Down, Key::Enter)).await;
    browser.says(".suggestions", "domain.update").await;
    browser.keys("dom").await;
    browser.until("one suggestion", async || browser.texts(".suggestions li").await.len() == 1).await;
    browser.is_accessible("suggestions").await;
    browser.keys(&format!("{}{}{}", Key::Down, Key::Enter, Key::Enter)).await;
    browser.says(".chips", "action domain.update").await;
    browser
        .until("the right rows", async || {
            let actions = browser.texts("tr[data-entry] td:nth-child(4)").await;
            !actions.is_empty() && actions.iter().all(|action| action == "domain.update")
        })
        .await;

    // The position of a mistake in the filter is marked.
    browser.write("input[role=combobox]", "user:alice usr:x").await;
    browser.keys(&Key::Enter.to_string()).await;
    browser.says(".filter-error", "unknown key \"usr\"").await;
    browser.says(".filter-error", "           ^").await;
    browser.is_accessible("a filter that is not understood").await;

    with_keys(&browser).await;
    zooms_and_remembers(&browser).await;
    browser.close().await;
    cluster.verify_all();
}

async fn with_keys(browser: &Browser) {
    browser.go("/?filter=action:domain.update").await;
    browser.find("tr[data-entry]").await;
    let places = browser.places().await;
    let body = "document.activeElement.blur()";
    browser.js(body, json!([])).await;
    browser.keys("jjk").await;
    let chosen = "return document.querySelector('tr[aria-selected]').dataset.entry";
    assert_eq!(browser.js(chosen, json!([])).await, json!(places[1]));
    browser.keys(&Key::Enter.to_string()).await;
    browser.says(".drawer", "domain.update on domain/").await;
    assert!(browser.address().await.contains("row=mx"), "{}", browser.address().await);
    browser.is_accessible("an entry").await;
    for (tab, words) in [
        ("changes", "quota"),
        ("context", "Five minutes before, on mx"),
        ("context", "Five minutes after, on mx"),
        ("context", "Same request"),
        ("raw", "\"action\":\"domain.update\""),
        ("proof", "The signature is valid"),
        ("proof", "piperoll verify-bundle mx"),
    ] {
        browser.click(&format!("#tab-{tab}")).await;
        browser.says("#drawer-panel", words).await;
    }
    browser.says(".drawer", "witnessed").await;
    browser.press("#drawer-panel", "Download proof").await;
    browser.says("pre.proof", "c2sp.org/tlog-proof@v1").await;
    browser.shot("entry").await;
    browser.click("#tab-changes").await;
    assert_eq!(browser.texts(".diff del").await, ["10"]);
    assert_eq!(browser.texts(".diff ins").await, ["20", "seen <b>"]);
    // Open the next entry, then close it: the focus returns to where it was before.
    let title = browser.text(".drawer code").await;
    browser.click(".drawer button[aria-label='Next entry']").await;
    browser.until("the next entry", async || browser.text(".drawer code").await != title).await;
    browser.keys(&Key::Escape.to_string()).await;
    browser.until("closed", async || browser.texts(".drawer").await.is_empty()).await;
    assert_eq!(browser.js("return document.activeElement.className", json!([])).await, "link-button row-link");
    // Every value of the row can be reached and left by keyboard.
    let focused = "return document.activeElement.className";
    browser.keys(&Key::Right.to_string()).await;
    assert_eq!(browser.js(focused, json!([])).await, "link-button value");
    browser.keys(&Key::Left.to_string()).await;
    assert_eq!(browser.js(focused, json!([])).await, "link-button row-link");
    // Keyboard shortcuts: help, another time zone, a filter on a value of this row, export, another page.
    browser.keys("?").await;
    browser.says("dialog", "new entries").await;
    browser.is_accessible("help").await;
    browser.keys(&Key::Escape.to_string()).await;
    browser.keys("t").await;
    browser.until("local time", async || !browser.text("#time-zone").await.ends_with("UTC")).await;
    assert!(browser.address().await.contains("zone=local"));
    browser.keys("t").await;
    browser.keys("x").await;
    browser.press("dialog", "user:").await;
    browser.says(".chips", "not user").await;
    browser.find("tr[data-entry]").await;
    browser.keys("e").await;
    browser.says("dialog", "entries will be exported").await;
    browser.is_accessible("the export dialog").await;
    browser.keys(&Key::Escape.to_string()).await;
    browser.keys("gn").await;
    browser.says("h1", "Nodes").await;
}

async fn zooms_and_remembers(browser: &Browser) {
    browser.go("/?filter=-category:audit&from=1h").await;
    let chart = browser.find(".histogram svg").await;
    let drag = "const box = arguments[0].getBoundingClientRect(); const at = (part, type) => arguments[0].dispatchEvent(new PointerEvent(type, { clientX: box.left + box.width * part, clientY: box.top + 9, pointerId: 1, bubbles: true })); arguments[0].setPointerCapture = () => {}; at(0.5, 'pointerdown'); at(0.8, 'pointermove'); at(1, 'pointerup');";
    browser.client.execute(drag, vec![serde_json::to_value(&chart).unwrap()]).await.unwrap();
    browser.until("a zoomed range", async || browser.address().await.contains("&to=")).await;
    browser.find("tr[data-entry]").await;
    browser.says(".histogram details", "View as table").await;
    // A saved search is restored together with its time range.
    let address = browser.address().await;
    browser.press(".filter-toolbar", "Saved").await;
    browser.write("dialog input", "the last half hour").await;
    browser.press("dialog", "Save").await;
    browser.says("dialog ul", "the last half hour").await;
    browser.is_accessible("saved searches").await;
    browser.go("/").await;
    browser.press(".filter-toolbar", "Saved").await;
    browser.press("dialog ul", "the last half hour").await;
    browser.until("the kept view", async || browser.address().await == address).await;
    // Printing: the report is present when the browser prints, and states its filter and whether it is complete.
    browser
        .js("window.print = () => { window.printed = document.querySelector('.report').textContent }", json!([]))
        .await;
    browser.press(".filter-toolbar", "Print").await;
    browser.until("a report", async || browser.js("return Boolean(window.printed)", json!([])).await == true).await;
    let report = browser.js("return window.printed", json!([])).await.as_str().unwrap().to_owned();
    for words in ["Audit log report", "Filter: -category:audit", "4 of 4 nodes answered", "These are all"] {
        assert!(report.contains(words), "{words}: {report}");
    }
    // Narrow windows and fourfold zoom: nothing is cut off horizontally.
    for (width, height) in [(360, 800), (700, 800)] {
        browser.client.set_window_size(width, height).await.unwrap();
        browser.go("/?filter=user:alice").await;
        browser.find("tr[data-entry]").await;
        let wide = browser
            .js("return document.documentElement.scrollWidth - document.documentElement.clientWidth", json!([]))
            .await;
        assert!(wide.as_f64().unwrap() <= 1.0, "{width}: {wide} pixels too wide");
        browser.is_accessible("a narrow window").await;
    }
    browser.shot("narrow").await;
    browser.client.set_window_size(1400, 1000).await.unwrap();
}

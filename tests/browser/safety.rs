//! Tests the security policy, the size of the first page, and the absence of requests from an idle page.

use std::time::Duration;

use piperoll_tests::{Cluster, entry};
use serde_json::json;

use super::driver::Browser;

/// Maximum size of everything that the first page loads, in bytes.
const FIRST_PAGE_BYTES_MAX: f64 = 150.0 * 1024.0;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_is_small_and_then_quiet() {
    let cluster = Cluster::witnessed(&["mx1", "mx2", "mx3"], 200).await;
    for index in 0..3 {
        let lines: Vec<String> = (0..200).map(|n| entry(&format!("user{n}"), "auth.login")).collect();
        cluster.append(index, &lines).await;
    }
    cluster.wait_until_complete().await;
    let Some(browser) = Browser::signed_in(&cluster, &cluster.token).await else { return };
    browser.says(".facets", "auth.login").await;
    browser.says(".stats", "active users").await;

    let sum = "const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]; return all.reduce((sum, one) => sum + one.transferSize + (one.transferSize === 0 ? one.encodedBodySize : 0), 0)";
    let bytes = browser.js(sum, json!([])).await.as_f64().unwrap();
    assert!(bytes < FIRST_PAGE_BYTES_MAX, "{bytes} bytes");
    println!("first page: {bytes} bytes");

    // An idle page sends no request. In live mode one request stays open, and no other is sent.
    let count = "return performance.getEntriesByType('resource').length";
    let before = browser.js(count, json!([])).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(browser.js(count, json!([])).await, before);
    browser.keys("l").await;
    browser.says(".filter-toolbar .actions", "Live, complete up to").await;
    browser.until("counted", async || browser.texts(".facets details").await.len() > 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = browser.js(count, json!([])).await;
    cluster.append(0, &[entry("fresh", "auth.login")]).await;
    browser.says("tbody tr[data-entry]", "fresh").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(browser.js(count, json!([])).await, before);

    // The security policy blocks an injected inline script.
    let inject = "const done = arguments[0]; document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective), { once: true }); const script = document.createElement('script'); try { script.textContent = 'window.pwned = 1'; document.body.append(script); } catch (error) { done('trusted-types') } setTimeout(() => done('ran: ' + window.pwned), 1000)";
    let refused = browser.client.execute_async(inject, vec![]).await.unwrap();
    assert!(!refused.as_str().unwrap().starts_with("ran"), "{refused}");
    browser.close().await;
}

//! What a scraper sees of a node.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::Health;

/// Counters are bumped where things happen; gauges are read from the log's health when asked.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) appended: Counter,
    pub(crate) repeated: Counter,
    pub(crate) refused: Counter,
    pub(crate) scanned_rows: Counter,
    head: Gauge,
    commit_micros: Gauge,
    write_fault: Gauge,
    read_fault: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("piperoll_node");
        let metrics = Self {
            appended: Counter::default(),
            repeated: Counter::default(),
            refused: Counter::default(),
            scanned_rows: Counter::default(),
            head: Gauge::default(),
            commit_micros: Gauge::default(),
            write_fault: Gauge::default(),
            read_fault: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("entries_appended", "Entries recorded", metrics.appended.clone());
        registry.register("entries_repeated", "Entries sent again under a known id", metrics.repeated.clone());
        registry.register("entries_refused", "Entries refused", metrics.refused.clone());
        registry.register("rows_sent", "Rows sent to readers", metrics.scanned_rows.clone());
        registry.register("rows", "Rows ever written", metrics.head.clone());
        registry.register(
            "commit_micros",
            "Duration of the last group commit in microseconds",
            metrics.commit_micros.clone(),
        );
        registry.register("write_fault", "1 while appends are refused", metrics.write_fault.clone());
        registry.register("read_fault", "1 while the file is not trusted", metrics.read_fault.clone());
        *metrics.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = registry;
        metrics
    }

    pub(crate) fn page(&self, health: &Health) -> axum::response::Response {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.head.set(health.head().map_or(0, |head| number(head + 1)));
        self.commit_micros.set(number(health.commit_micros.load(Ordering::Relaxed)));
        self.write_fault.set(i64::from(health.append_fault().is_some()));
        self.read_fault.set(i64::from(health.read_fault().is_some()));
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        piperoll_shared::net::metrics::page(&registry)
    }
}

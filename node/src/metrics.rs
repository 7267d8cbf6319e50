//! Metrics of a node.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64};

use piperoll_protocol::node::{ForwardStatus, NodeStatus};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::sources::IntakeCounts;
use crate::store::Health;

/// The node's metrics. Counters are incremented where events happen; gauges are read from the log's health on request.
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
    reader_panics: Gauge,
    oldest_row: Gauge,
    signed_rows: Gauge,
    witnessed_rows: Gauge,
    bytes_freed: Gauge,
    holds: Gauge,
    retention_problem: Gauge,
    retention_late_days: Gauge,
    indexed_rows: Gauge,
    index_bytes: Gauge,
    database_bytes: Gauge,
    disk_free_bytes: Gauge,
    certificate_not_after_seconds: Gauge,
    forward: ForwardGauges,
    pub(crate) intake: IntakeCounts,
}

type PerDestination<N, A> = Family<Vec<(&'static str, String)>, Gauge<N, A>>;

/// Gauges of forwarding, one series per destination.
#[derive(Default)]
struct ForwardGauges {
    next_seq: PerDestination<i64, AtomicI64>,
    lag_rows: PerDestination<i64, AtomicI64>,
    lag_seconds: PerDestination<f64, AtomicU64>,
    rows_sent: PerDestination<i64, AtomicI64>,
    rows_reduced: PerDestination<i64, AtomicI64>,
    errors: PerDestination<i64, AtomicI64>,
    failing: PerDestination<i64, AtomicI64>,
    paused: PerDestination<i64, AtomicI64>,
}

impl Metrics {
    pub(crate) fn new(health: &Health) -> Self {
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
            reader_panics: Gauge::default(),
            oldest_row: Gauge::default(),
            signed_rows: Gauge::default(),
            witnessed_rows: Gauge::default(),
            bytes_freed: Gauge::default(),
            holds: Gauge::default(),
            retention_problem: Gauge::default(),
            retention_late_days: Gauge::default(),
            indexed_rows: Gauge::default(),
            index_bytes: Gauge::default(),
            database_bytes: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            certificate_not_after_seconds: Gauge::default(),
            forward: ForwardGauges::default(),
            intake: IntakeCounts::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("entries_appended", "Entries recorded", metrics.appended.clone());
        registry.register("entries_repeated", "Duplicate entries acknowledged", metrics.repeated.clone());
        registry.register("entries_refused", "Entries refused", metrics.refused.clone());
        registry.register("rows_sent", "Rows sent to clients", metrics.scanned_rows.clone());
        registry.register("rows", "Rows ever written", metrics.head.clone());
        registry.register(
            "commit_micros",
            "Deprecated: use commit_duration_seconds. Duration of the last group commit in microseconds",
            metrics.commit_micros.clone(),
        );
        let commits = health.commits.histogram.clone();
        registry.register("commit_duration_seconds", "Duration of group commits", commits);
        registry.register("write_fault", "1 while appends are refused", metrics.write_fault.clone());
        registry.register("read_fault", "1 while the database file is not trusted", metrics.read_fault.clone());
        registry.register("reader_panics", "Reads that panicked since the node started", metrics.reader_panics.clone());
        registry.register(
            "oldest_row",
            "Log start: number of the oldest row that was not pruned",
            metrics.oldest_row.clone(),
        );
        registry.register("signed_rows", "Rows covered by the newest signed checkpoint", metrics.signed_rows.clone());
        registry.register(
            "witnessed_rows",
            "Rows covered by the newest cosigned checkpoint",
            metrics.witnessed_rows.clone(),
        );
        registry.register(
            "retention_bytes_freed",
            "Bytes of disk space freed by the last prune",
            metrics.bytes_freed.clone(),
        );
        registry.register("retention_holds", "Active holds", metrics.holds.clone());
        registry.register("retention_problem", "1 while retention is failing", metrics.retention_problem.clone());
        registry.register(
            "retention_late_days",
            "Days by which the oldest rows exceed the retention period",
            metrics.retention_late_days.clone(),
        );
        registry.register("indexed_rows", "Rows covered by the search index", metrics.indexed_rows.clone());
        for (name, help, gauge) in [
            ("database_bytes", "Size of the log's files in bytes", &metrics.database_bytes),
            ("disk_free_bytes", "Free bytes on the log's disk", &metrics.disk_free_bytes),
            (
                "certificate_not_after_seconds",
                "Expiry time of the certificate in seconds since the Unix epoch",
                &metrics.certificate_not_after_seconds,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register("index_bytes", "Size of the search index's files in bytes", metrics.index_bytes.clone());
        metrics.intake.register(&mut registry);
        metrics.forward.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = registry;
        metrics
    }

    /// Renders the metrics page. `status` is `None` if the database could not be read in time; the gauges read from it then keep their
    /// values.
    pub(crate) fn page(
        &self,
        health: &Health,
        status: Option<&NodeStatus>,
        forward: &[ForwardStatus],
    ) -> axum::response::Response {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.head.set(health.head().map_or(0, |head| number(head + 1)));
        self.commit_micros.set(number(health.commits.last_micros()));
        self.write_fault.set(i64::from(health.append_fault().is_some()));
        self.read_fault.set(i64::from(health.read_fault().is_some()));
        self.reader_panics.set(number(health.reader_panics()));
        self.signed_rows.set(number(health.signed_size()));
        self.witnessed_rows.set(number(health.witnessed_size()));
        if let Some(status) = status {
            self.oldest_row.set(number(status.oldest_seq.unwrap_or(0)));
            self.database_bytes.set(number(status.database_bytes));
            self.disk_free_bytes.set(number(status.disk_free_bytes));
            let ends = status.certificate_not_after.map_or(0, |end| end.micros() / 1_000_000);
            self.certificate_not_after_seconds.set(ends);
        }
        if let Some(index) = status.and_then(|status| status.index) {
            self.indexed_rows.set(number(index.rows));
            self.index_bytes.set(number(index.bytes));
        }
        if let Some(retention) = status.and_then(|status| status.retention.as_ref()) {
            self.bytes_freed.set(number(retention.bytes_freed));
            self.holds.set(number(retention.holds.len() as u64));
            self.retention_problem.set(i64::from(retention.problem.is_some()));
            self.retention_late_days.set(i64::from(retention.late_days));
        }
        self.forward.set(forward);
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        piperoll_net::metrics::page(&registry)
    }
}

impl ForwardGauges {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("forward");
        registry.register(
            "next_seq",
            "Offset: every row with a lower number has reached the destination",
            self.next_seq.clone(),
        );
        registry.register("lag_rows", "Rows that have not reached the destination", self.lag_rows.clone());
        registry.register(
            "lag_seconds",
            "Age of the oldest row that the destination has not confirmed",
            self.lag_seconds.clone(),
        );
        registry.register(
            "rows_sent",
            "Rows sent since the node started, including retransmissions",
            self.rows_sent.clone(),
        );
        registry.register(
            "rows_reduced",
            "Rows sent in reduced form, with the omitted fields listed",
            self.rows_reduced.clone(),
        );
        registry.register("errors", "Failed forwarding attempts since the node started", self.errors.clone());
        registry.register("failing", "1 if the last forwarding attempt failed", self.failing.clone());
        registry.register("paused", "1 while paused by an operator", self.paused.clone());
    }

    fn set(&self, statuses: &[ForwardStatus]) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        for status in statuses {
            let name = vec![("name", status.name.clone())];
            self.next_seq.get_or_create(&name).set(number(status.next_seq));
            self.lag_rows.get_or_create(&name).set(number(status.lag_rows));
            self.lag_seconds.get_or_create(&name).set(status.lag_seconds);
            self.rows_sent.get_or_create(&name).set(number(status.rows_sent));
            self.rows_reduced.get_or_create(&name).set(number(status.rows_reduced));
            self.errors.get_or_create(&name).set(number(status.errors));
            self.failing.get_or_create(&name).set(i64::from(status.problem.is_some()));
            self.paused.get_or_create(&name).set(i64::from(status.paused.is_some()));
        }
    }
}

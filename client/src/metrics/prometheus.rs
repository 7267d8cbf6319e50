//! Counts the entries of a recorder for Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::now;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::outcome::{EmitError, Emitted};
use crate::policy::DeliveryPolicy;
use crate::spool::Waiting;

const PREFIX: &str = "piperoll_audit";
/// Value of `oldest` while no entry waits.
const NONE: i64 = i64::MIN;

type Labels = Vec<(&'static str, &'static str)>;

#[derive(Debug)]
pub(crate) struct Metrics {
    emitted: Family<Labels, Counter>,
    drops: Counter,
    gaps: Counter,
    waiting: Gauges,
    text: Mutex<Registry>,
}

/// Gauges that are read at each scrape.
#[derive(Debug, Clone)]
struct Gauges {
    waiting: Option<Arc<Waiting>>,
    /// Time at which the oldest waiting entry was emitted, in microseconds since 1970.
    oldest: Arc<AtomicI64>,
}

impl Metrics {
    pub(crate) fn new(waiting: Option<Arc<Waiting>>) -> Self {
        let waiting = Gauges { waiting, oldest: Arc::new(AtomicI64::new(NONE)) };
        let metrics = Self {
            emitted: Family::default(),
            drops: Counter::default(),
            gaps: Counter::default(),
            waiting,
            text: Mutex::default(),
        };
        metrics.register(&mut metrics.text.lock().unwrap_or_else(PoisonError::into_inner));
        metrics
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix(PREFIX);
        registry.register("emitted", "Entries emitted, by policy and result", self.emitted.clone());
        registry.register("buffer_drops", "Entries that were lost", self.drops.clone());
        registry.register("gaps_reported", "Losses reported to the log", self.gaps.clone());
        registry.register_collector(Box::new(self.waiting.clone()));
    }

    pub(crate) fn count(&self, policy: DeliveryPolicy, result: &Result<Emitted, EmitError>) {
        let word = match result {
            Ok(Emitted::Recorded(_)) => "recorded",
            Ok(Emitted::Spooled(_)) => "kept",
            Ok(Emitted::Dropped) | Err(EmitError::Lost(_)) => {
                self.lost(1);
                "lost"
            }
            Err(EmitError::Late { .. } | EmitError::Closed | EmitError::NoSpool) => "failed",
            Err(EmitError::Invalid(_) | EmitError::Refused(_)) => "refused",
        };
        self.emitted.get_or_create(&vec![("policy", policy.word()), ("result", word)]).inc();
    }

    pub(crate) fn gap_reported(&self) {
        self.gaps.inc();
    }

    pub(crate) fn lost(&self, count: u64) {
        self.drops.inc_by(count);
    }

    pub(crate) fn oldest_waiting(&self, time: Option<i64>) {
        self.waiting.oldest.store(time.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let read = |of: fn(&Waiting) -> &AtomicU64| {
            self.waiting.as_ref().map_or(0, |waiting| of(waiting).load(Ordering::Relaxed))
        };
        let entries = read(|waiting| &waiting.entries);
        let oldest = self.oldest.load(Ordering::Relaxed);
        let lag = if entries == 0 || oldest == NONE {
            0.0
        } else {
            now().micros().saturating_sub(oldest).max(0) as f64 / 1e6
        };
        for (name, help, value) in [
            ("writer_lag_seconds", "Age of the oldest entry waiting to be recorded", lag),
            ("spool_entries", "Entries waiting in the spool", entries as f64),
            ("spool_bytes", "Bytes of entries waiting in the spool", read(|waiting| &waiting.bytes) as f64),
        ] {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

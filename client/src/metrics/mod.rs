//! Counters of a recorder, for Prometheus. Without the feature `metrics`, they count nothing.

#[cfg(not(feature = "metrics"))]
mod none;
#[cfg(feature = "metrics")]
mod prometheus;

#[cfg(not(feature = "metrics"))]
pub(crate) use none::Metrics;
#[cfg(feature = "metrics")]
pub(crate) use prometheus::Metrics;

//! Provides the counters of a build without the feature `metrics`, which count nothing.

use std::sync::Arc;

use crate::outcome::{EmitError, Emitted};
use crate::policy::DeliveryPolicy;
use crate::spool::Waiting;

#[derive(Debug)]
pub(crate) struct Metrics;

impl Metrics {
    pub(crate) fn new(_: Option<Arc<Waiting>>) -> Self {
        Self
    }

    pub(crate) fn count(&self, _: DeliveryPolicy, _: &Result<Emitted, EmitError>) {}

    pub(crate) fn lost(&self, _: u64) {}

    pub(crate) fn gap_reported(&self) {}

    pub(crate) fn oldest_waiting(&self, _: Option<i64>) {}
}

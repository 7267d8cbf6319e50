//! Counts of received records, and problems of sources.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use piperoll_protocol::node::IntakeStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::record::Shared;

/// Number of records received, by source name and result.
#[derive(Clone, Default)]
pub(crate) struct IntakeCounts(pub(super) Family<Vec<(&'static str, String)>, Counter>, pub(crate) Problems);

impl IntakeCounts {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Records from other systems, by result: recorded, unmapped (recorded unchanged), passed_over, dropped, conflict (recorded under a new ID)";
        registry.register("intake_records", help, self.0.clone());
    }

    pub(super) fn add(&self, name: &str, result: &str, count: u64) {
        if count > 0 {
            self.0.get_or_create(&vec![("name", name.to_owned()), ("result", result.to_owned())]).inc_by(count);
        }
    }
}

/// Reason why a source cannot be read, by source name; shown in health.
#[derive(Clone, Default)]
pub(crate) struct Problems(Shared<BTreeMap<String, String>>);

impl Problems {
    pub(super) fn set(&self, name: &str, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => drop(problems.insert(name.to_owned(), problem)),
            None => drop(problems.remove(name)),
        }
    }

    /// Returns the names and problems of the sources that cannot be read.
    pub(crate) fn all(&self) -> Vec<IntakeStatus> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().map(|(name, problem)| IntakeStatus { name: name.clone(), problem: problem.clone() }).collect()
    }
}

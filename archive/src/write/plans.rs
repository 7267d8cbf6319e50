//! Plans of the next step, by which an interrupted attempt is repeated.

use bytes::Bytes;

use super::error::WriteError;
use super::writer::Writer;
use crate::history::History;
use crate::record::names;
use crate::record::{Plan, PlannedFile, STEP_BYTES_MAX, digest_of};
use crate::store::Created;

/// Maximum number of plans of one step: attempts that were interrupted and created different files.
const PLANS_MAX: usize = 256;

/// Plans of one step that were made before.
#[derive(Default)]
pub(super) struct Plans {
    /// Those that continue the present history, the first one first.
    pub(super) current: Vec<Plan>,
    /// Whether there are others.
    has_stale: bool,
}

impl Writer {
    /// Reads the plans of a step.
    pub(super) async fn open_plans(&self, number: u64, history: &History) -> Result<Plans, WriteError> {
        let mut plans = Plans::default();
        for (name, plan) in self.plans_of(number).await? {
            if plan.previous != history.head.digest {
                // It was made for another history, before an operator accepted a rollback.
                plans.has_stale = true;
            } else if self.is_own(&plan.writer) || self.state.state.adopted == Some(number) {
                plans.current.push(plan);
            } else {
                return Err(WriteError::AnotherWriter { name, writer: plan.writer, own: self.name() });
            }
        }
        Ok(plans)
    }

    /// Returns all plans of a step, the first one first.
    pub(super) async fn plans_of(&self, number: u64) -> Result<Vec<(String, Plan)>, WriteError> {
        let mut all = Vec::new();
        let listed = self.store.list(names::PLANS).await?;
        let of_it = listed.into_iter().filter(|listed| names::number_of_plan(&listed.name) == Some(number));
        for listed in of_it.take(PLANS_MAX) {
            let bytes = self.store.read(&listed.name, STEP_BYTES_MAX as u64).await?;
            let plan = Plan::read(&listed.name, &bytes, self.settings.keys.steps.public())?;
            all.push((listed.name, plan));
        }
        Ok(all)
    }

    /// Creates the plan's object, unless earlier plans of the step name all of its files. Files are created only after this, so
    /// that those that are not needed in the end can be found.
    pub(super) async fn announce(&self, plan: &Plan, plans: &Plans) -> Result<(), WriteError> {
        let is_named = |file: &PlannedFile| plans.current.iter().any(|known| known.files.contains(file));
        if !plans.current.is_empty() && plan.files.iter().all(is_named) {
            return Ok(());
        }
        let bytes = Bytes::from(plan.to_bytes(&self.settings.keys.steps)?);
        if bytes.len() > STEP_BYTES_MAX {
            return Err(WriteError::TooManyRuns(plan.number));
        }
        let name = if plans.current.is_empty() && !plans.has_stale {
            names::plan(plan.number)
        } else {
            names::plan_again(plan.number, &digest_of(&bytes))
        };
        if self.store.create(&name, bytes.clone()).await? == Created::New {
            return Ok(());
        }
        let found = self.store.read(&name, STEP_BYTES_MAX as u64).await?;
        if found == bytes {
            return Ok(());
        }
        let other = Plan::read(&name, &found, self.settings.keys.steps.public())?;
        Err(WriteError::AnotherWriter { name, writer: other.writer, own: self.name() })
    }
}

//! Lets a handler add information about its request.

use std::sync::{Arc, Mutex, PoisonError};

use piperoll_format::limits::SHORT_WORD_BYTES_MAX;

use super::caller::{Caller, fitting};
use crate::EntryId;
use crate::entry::{Category, Entry, Outcome};

/// Value of `reason` in an entry that was recorded before its operation began.
pub(crate) const INTENT: &str = "intent";

/// The audit entry of the current request: a request extension to which handlers add information. Clones share the entry.
#[derive(Debug, Clone)]
pub struct AuditContext(Arc<Mutex<ContextState>>);

#[derive(Debug)]
struct ContextState {
    /// The entry as derived from the request and its caller, without the handler's additions.
    bare: Entry,
    entry: Entry,
    /// Category and action that the handler set.
    name: Option<(Category, String)>,
    is_change: bool,
    /// Whether the request is recorded regardless of its outcome.
    is_wanted: bool,
    /// Set by `skip_on_success`. A request that only reads is then recorded only if it fails and `is_wanted` is set.
    is_unremarkable: bool,
    /// Whether the request was rejected before anything was done; repeated rejections are only counted.
    is_turned_away: bool,
    /// Id of the intent that was recorded before the operation began.
    intent: Option<EntryId>,
}

impl AuditContext {
    pub(super) fn new(entry: Entry, is_change: bool, is_wanted: bool) -> Self {
        let bare = entry.clone();
        let (name, intent, is_unremarkable, is_turned_away) = (None, None, false, false);
        let state = ContextState { bare, entry, name, is_change, is_wanted, is_unremarkable, is_turned_away, intent };
        Self(Arc::new(Mutex::new(state)))
    }

    fn with<T>(&self, work: impl FnOnce(&mut ContextState) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the category and action of the request, which is then recorded even if it only reads.
    pub fn action(&self, category: Category, action: impl Into<String>) -> &Self {
        self.with(|state| {
            let action = action.into();
            (state.entry.category, state.entry.action) = (category, action.clone());
            state.name = Some((category, action));
            (state.is_wanted, state.is_unremarkable) = (true, false);
        });
        self
    }

    /// Changes the entry, as in `context.update(|entry| entry.entity("domain", "example.org"))`.
    pub fn update(&self, say: impl FnOnce(Entry) -> Entry) -> &Self {
        self.with(|state| state.entry = say(state.entry.clone()));
        self
    }

    /// Sets the caller.
    pub fn caller(&self, caller: Caller) -> &Self {
        self.with(|state| {
            state.bare = caller.clone().fill(state.bare.clone());
            state.entry = caller.fill(state.entry.clone());
        });
        self
    }

    /// Marks the request as rejected before anything was done, for `reason`, a code such as `no_credentials`. The first rejection
    /// from an address is recorded; further ones within a minute are counted in one entry, so that clients cannot fill the log.
    pub fn reject(&self, reason: impl Into<String>) -> &Self {
        let (reason, _) = fitting(&reason.into(), SHORT_WORD_BYTES_MAX);
        self.with(|state| {
            for entry in [&mut state.entry, &mut state.bare] {
                *entry = entry.clone().outcome(Outcome::Denied).reason(reason.clone());
            }
            (state.is_turned_away, state.is_wanted, state.is_unremarkable) = (true, true, false);
        });
        self
    }

    /// Records nothing if a request that only reads succeeds or is denied; meant for reads of data that the caller already knows.
    /// A failed read is still recorded if [`RecordLayer::record_reads`](super::RecordLayer::record_reads) is set or the handler
    /// has named the action. A request that may change something is always recorded.
    pub fn skip_on_success(&self) -> &Self {
        self.with(|state| state.is_unremarkable = true);
        self
    }

    pub(super) fn is_turned_away(&self) -> bool {
        self.with(|state| state.is_turned_away)
    }

    pub(super) fn is_change(&self) -> bool {
        self.with(|state| state.is_change)
    }

    pub(super) fn needs_entry(&self, outcome: Outcome) -> bool {
        self.with(|state| match (state.is_change, state.is_unremarkable) {
            (true, _) => true,
            (false, true) => state.is_wanted && outcome == Outcome::Failure,
            (false, false) => state.is_wanted || outcome == Outcome::Denied,
        })
    }

    /// Creates the intent, a separate entry that is recorded before the operation begins.
    pub(super) fn intent(&self) -> Entry {
        let id = EntryId::from_uuid(uuid::Uuid::now_v7());
        let bare = self.with(|state| {
            state.intent = Some(id);
            state.bare.clone()
        });
        bare.with_id(id).outcome(Outcome::Unknown).reason(INTENT)
    }

    /// Creates the entry of the finished request. An outcome or reason that the handler has set is kept.
    pub(super) fn final_entry(&self, outcome: Outcome, reason: &str) -> Entry {
        self.with(|state| ended(state.entry.clone(), outcome, reason, state.intent))
    }

    /// Creates an entry without the handler's additions, except the caller and, if `with_name`, the category and action. The
    /// entry gets a new id, because the old id may be the reason for the refusal.
    pub(super) fn minimal_entry(&self, outcome: Outcome, reason: &str, with_name: bool) -> Entry {
        let id = EntryId::from_uuid(uuid::Uuid::now_v7());
        self.with(|state| {
            let mut bare = state.bare.clone().with_id(id);
            if let Some((category, action)) = state.name.clone().filter(|_| with_name) {
                (bare.category, bare.action) = (category, action);
            }
            ended(bare, outcome, reason, state.intent)
        })
    }
}

fn ended(mut entry: Entry, outcome: Outcome, reason: &str, intent: Option<EntryId>) -> Entry {
    if !entry.has_outcome() {
        entry = entry.outcome(outcome);
    }
    if !entry.has_reason() {
        entry = entry.reason(reason);
    }
    match intent {
        Some(intent) => entry.detail("intent", intent),
        None => entry,
    }
}

//! What stands out: rules that look at an entry while it is recorded, before it is signed (docs/flags.md).
//!
//! They look at when something happened, not at when it was recorded, so an import is judged like what came in time. What was
//! flagged stays flagged; later judgements are entries of their own.

mod rules;
mod windows;

use std::net::{IpAddr, Ipv6Addr};

use chrono::{Datelike as _, Timelike as _, Weekday};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::entry::Facts;
use super::limits::FLAG_REASON_BYTES_MAX;
use super::time::Timestamp;
pub use rules::{
    FailedLogins, Impersonation, ManyOperations, NewAddress, OutsideHours, RepeatedEdits, Rule, Rules,
    SensitiveDeletion, ValueChanged,
};
use windows::{Counted, Key, Memory, Window};

/// Why an entry stands out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    pub rule: String,
    /// In words, at most [`FLAG_REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// The names of the rules, in the order in which an entry carries them.
pub const RULES: [&str; 8] = [
    "value_changed",
    "many_operations",
    "outside_hours",
    "sensitive_deletion",
    "repeated_edits",
    "failed_logins",
    "new_address",
    "impersonation",
];

/// Reading the log is watched by its own entries; whoever pages through it is not busy in this sense.
const READING: &str = "audit";
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The rules and what they remember.
#[derive(Debug)]
pub struct Judge {
    rules: Rules,
    operations: Window,
    edits: Window,
    failures: Window,
    /// When a user last logged in from an address, and at all.
    logins: Memory<i64>,
    /// What was remembered since [`Judge::settle`].
    journal: Vec<Step>,
}

/// Something that was remembered.
#[derive(Debug)]
enum Step {
    Operation(Counted),
    Edit(Counted),
    Failure(Counted),
    Login { key: Key, before: Option<i64> },
}

impl Judge {
    pub fn new(rules: Rules) -> Self {
        let window = |within: Option<std::time::Duration>, enough: Option<usize>| {
            let micros = within.unwrap_or_default().as_micros().try_into().unwrap_or(i64::MAX);
            Window::new(micros, enough.unwrap_or_default().saturating_add(1))
        };
        Self {
            operations: window(
                rules.many_operations.0.as_ref().map(|r| r.within),
                rules.many_operations.0.as_ref().map(|r| r.more_than),
            ),
            edits: window(
                rules.repeated_edits.0.as_ref().map(|r| r.within),
                rules.repeated_edits.0.as_ref().map(|r| r.at_least),
            ),
            failures: window(
                rules.failed_logins.0.as_ref().map(|r| r.within),
                rules.failed_logins.0.as_ref().map(|r| r.at_least),
            ),
            logins: Memory::default(),
            journal: Vec::new(),
            rules,
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Judges an entry and remembers it. `recorded` stands in when the entry does not say when it happened.
    pub fn judge(&mut self, facts: &Facts, recorded: Timestamp) -> Vec<Flag> {
        let time = facts.occurred_at.unwrap_or(recorded);
        let at = time.micros();
        let mut flags = Flags(Vec::new());
        if let Some(rule) = &self.rules.value_changed.0
            && let Some(changes) = &facts.changes
            && let Some(reason) = rule.look(changes)
        {
            flags.add("value_changed", reason);
        }
        let is_person =
            facts.user.is_some() && !facts.user_type.as_ref().is_some_and(|t| self.rules.machines.contains(t));
        let is_reading = facts.category == READING;
        if let (Some(rule), Some(user), true) = (&self.rules.many_operations.0, &facts.user, is_person && !is_reading) {
            let (count, counted) = self.operations.count(user.as_str(), at);
            self.journal.extend(counted.map(Step::Operation));
            if count > rule.more_than {
                let within = humantime::format_duration(rule.within);
                flags.add(
                    "many_operations",
                    format!("more than {} operations by {user} within {within}", rule.more_than),
                );
            }
        }
        if let (Some(rule), true) = (&self.rules.outside_hours.0, is_person && !is_reading)
            && let Some(reason) = rule.look(time)
        {
            flags.add("outside_hours", reason);
        }
        if let (Some(rule), Some(kind)) = (&self.rules.sensitive_deletion.0, &facts.entity_type)
            && facts.has_verb(&["delete", "deleted", "remove", "removed", "destroy", "purge", "drop"])
            && rule.entity_types.contains(kind)
        {
            flags.add("sensitive_deletion", format!("a {kind} was deleted"));
        }
        if let (Some(rule), Some(kind), Some(id), true) =
            (&self.rules.repeated_edits.0, &facts.entity_type, &facts.entity_id, is_person && !is_reading)
            && (facts.changes.is_some()
                || facts.has_verb(&["update", "updated", "edit", "edited", "change", "changed", "set"]))
        {
            let (count, counted) = self.edits.count((kind.as_str(), id.as_str()), at);
            self.journal.extend(counted.map(Step::Edit));
            if count >= rule.at_least {
                let within = humantime::format_duration(rule.within);
                flags.add("repeated_edits", format!("edited {} times or more within {within}", rule.at_least));
            }
        }
        self.judge_login(facts, at, &mut flags);
        if self.rules.impersonation.0.is_some()
            && let Some(impersonator) = &facts.impersonator
        {
            let user = facts.user.as_deref().unwrap_or("somebody");
            flags.add("impersonation", format!("{impersonator} acted as {user}"));
        }
        flags.0
    }

    fn judge_login(&mut self, facts: &Facts, at: i64, flags: &mut Flags) {
        if !facts.is_login() {
            return;
        }
        let Some(address) = &facts.ip_address else { return };
        let network = address.parse::<IpAddr>().map_or_else(|_| address.clone(), |ip| network(ip).to_string());
        if let Some(rule) = &self.rules.failed_logins.0
            && matches!(facts.outcome.as_deref(), Some("failure" | "denied"))
        {
            let (count, counted) = self.failures.count(network.as_str(), at);
            self.journal.extend(counted.map(Step::Failure));
            if count >= rule.at_least {
                let within = humantime::format_duration(rule.within);
                flags.add(
                    "failed_logins",
                    format!("{} failed logins or more from {network} within {within}", rule.at_least),
                );
            }
        }
        if let (Some(rule), Some(user), Some("success")) =
            (&self.rules.new_address.0, &facts.user, facts.outcome.as_deref())
        {
            let known_for = i64::from(rule.days) * MICROS_PER_DAY;
            let is_known = |last: Option<&i64>| last.is_some_and(|last| at.saturating_sub(*last) <= known_for);
            let (place, anywhere) =
                (self.logins.key((user.as_str(), network.as_str())), self.logins.key((user.as_str(), "")));
            // The very first login of a user is from a new address and says nothing.
            if is_known(self.logins.get(anywhere)) && !is_known(self.logins.get(place)) {
                flags.add("new_address", format!("the first login of {user} from {address} in {} days", rule.days));
            }
            for key in [place, anywhere] {
                let before = self.logins.get(key).copied();
                self.journal.push(Step::Login { key, before });
                let last = self.logins.entry(key, || at);
                *last = (*last).max(at);
            }
        }
    }

    /// How much was remembered up to here.
    pub fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Forgets what was remembered since: the entries were not recorded.
    pub fn back_to(&mut self, mark: usize) {
        for step in self.journal.drain(mark.min(self.journal.len())..).rev() {
            match step {
                Step::Operation(counted) => self.operations.take_back(counted),
                Step::Edit(counted) => self.edits.take_back(counted),
                Step::Failure(counted) => self.failures.take_back(counted),
                Step::Login { key, before: Some(before) } => *self.logins.entry(key, || before) = before,
                Step::Login { key, before: None } => self.logins.remove(key),
            }
        }
    }

    /// What was remembered is on disk and will not be forgotten.
    pub fn settle(&mut self) {
        self.journal.clear();
    }
}

/// Flags of one entry; a reason is cut to its limit.
struct Flags(Vec<Flag>);

impl Flags {
    fn add(&mut self, rule: &str, mut reason: String) {
        let mut end = FLAG_REASON_BYTES_MAX.min(reason.len());
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        if end < reason.len() {
            while end > FLAG_REASON_BYTES_MAX - '…'.len_utf8() || !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.truncate(end);
            reason.push('…');
        }
        // As JSON it must not grow beyond what is set aside for flags.
        let reason = reason.chars().map(|c| if c.is_control() || matches!(c, '"' | '\\') { '\'' } else { c }).collect();
        self.0.push(Flag { rule: rule.to_owned(), reason });
    }
}

impl ValueChanged {
    fn look(&self, changes: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Change<'a> {
            field: String,
            #[serde(borrow)]
            old: Option<&'a RawValue>,
            #[serde(borrow)]
            new: Option<&'a RawValue>,
        }
        let changes: Vec<Change<'_>> = serde_json::from_str(changes).ok()?;
        changes.iter().find_map(|change| {
            let last = change.field.rsplit(['.', '/']).next().unwrap_or(&change.field).to_ascii_lowercase();
            if !self.fields.iter().any(|word| last.contains(word.as_str())) {
                return None;
            }
            let (old, new) = (amount(change.old?)?, amount(change.new?)?);
            let percent = (new - old).abs() / old.abs() * 100.0;
            if old == new || percent <= self.over_percent {
                return None;
            }
            let by = if percent.is_finite() { format!("{percent:.0} %") } else { "from nothing".to_owned() };
            Some(format!("{} changed by {by}, more than {} %", change.field, self.over_percent))
        })
    }
}

/// A number, or the number that a text such as `"12.50 EUR"` begins or ends with.
fn amount(raw: &RawValue) -> Option<f64> {
    let text = raw.get();
    let text = if text.starts_with('"') { serde_json::from_str::<String>(text).ok()? } else { text.to_owned() };
    let digits: String = text.trim_matches(|c: char| !c.is_ascii_digit() && c != '-').replace([',', '\'', ' '], "");
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

impl OutsideHours {
    fn look(&self, time: Timestamp) -> Option<String> {
        let local = chrono::DateTime::from_timestamp_micros(time.micros())?.with_timezone(&self.zone);
        let minute = u16::try_from(local.hour() * 60 + local.minute()).ok()?;
        let is_quiet = if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        };
        let clock = local.format("%H:%M");
        if self.weekends && matches!(local.weekday(), Weekday::Sat | Weekday::Sun) {
            return Some(format!("{} {clock} in {} is a weekend", local.format("%A"), self.zone));
        }
        is_quiet.then(|| {
            let of = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            format!("{clock} in {} is between {} and {}", self.zone, of(self.from), of(self.to))
        })
    }
}

/// One person can have a whole /64; it counts as one address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests;

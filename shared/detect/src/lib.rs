//! Evaluates the detection rules on entries as they are recorded, before they are signed (docs/flags.md).
//!
//! Rules use the time when something happened, not the time when it was recorded, so imported entries are evaluated like entries that
//! arrived on time. A flag is never removed; later verdicts are entries of their own.

mod rules;
mod windows;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use chrono::{Datelike as _, Timelike as _, Weekday};
use serde::{Deserialize, Serialize};

use piperoll_format::entry::{Amount, Login, RuleInput, split_words};
use piperoll_format::limits::FLAG_REASON_BYTES_MAX;
use piperoll_format::time::{Timestamp, span};
pub use rules::{
    FailedLogins, Impersonation, ManyOperations, NewAddress, NewDevice, OutsideHours, RepeatedEdits, Rule, Rules,
    SensitiveDeletion, ValueChanged,
};
use windows::{Counted, Key, Memory, Window};

/// Flag of an entry: the rule that matched, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    pub rule: String,
    /// Human-readable text of at most [`FLAG_REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// Names of the rules, in the order in which an entry lists them.
pub const RULES: [&str; 9] = [
    "value_changed",
    "many_operations",
    "outside_hours",
    "sensitive_deletion",
    "repeated_edits",
    "failed_logins",
    "new_address",
    "new_device",
    "impersonation",
];

/// Category of the entries that record reads of the log. Paging through the log is not the activity that the rules
/// look for; see [`Detector::is_exempt`].
const READING: &str = "audit";
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The detection rules, and the earlier events that they need.
#[derive(Debug)]
pub struct Detector {
    rules: Rules,
    operations: Window,
    edits: Window,
    failures: Window,
    /// Times of each user's last login from each address and with each device, and of the user's last login overall.
    logins: Memory<i64>,
    /// Changes to the memory since the last [`Detector::commit`], so that [`Detector::rollback_to`] can undo them.
    journal: Vec<Step>,
}

/// One change to the memory of the detector.
#[derive(Debug)]
enum Step {
    Operation(Counted),
    Edit(Counted),
    Failure(Counted),
    Login { key: Key, before: Option<i64> },
}

impl Detector {
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

    /// Evaluates the rules on an entry and remembers the entry. `recorded` is used if the entry does not state when it happened.
    pub fn detect(&mut self, rule_input: &RuleInput, recorded: Timestamp) -> Vec<Flag> {
        let mut flags = Flags(Vec::new());
        self.check_amounts(rule_input, &mut flags);
        self.check_recent(rule_input, recorded, &mut flags);
        self.check_login(rule_input, recorded, &mut flags);
        if self.rules.impersonation.0.is_some()
            && let Some(impersonator) = &rule_input.impersonator
        {
            let user = rule_input.user.as_deref().unwrap_or("an unnamed user");
            flags.add("impersonation", format!("{impersonator} acted as {user}"));
        }
        flags.in_order()
    }

    /// Remembers a recently recorded entry again after a restart, for the rules that count events. [`Self::remember_login`] is
    /// the counterpart for the login rules.
    pub fn remember_lately(&mut self, rule_input: &RuleInput, recorded: Timestamp) {
        let at = rule_input.occurred_at.unwrap_or(recorded).micros();
        self.count_operation(rule_input, at);
        self.count_edit(rule_input, at);
        self.count_failure(rule_input, at);
        self.commit();
    }

    /// Remembers a successful login again after a restart.
    pub fn remember_login(&mut self, rule_input: &RuleInput, recorded: Timestamp) {
        self.check_new_address(rule_input, recorded, &mut Flags(Vec::new()));
        self.check_new_device(rule_input, recorded, &mut Flags(Vec::new()));
        self.commit();
    }

    fn check_amounts(&self, rule_input: &RuleInput, flags: &mut Flags) {
        if let Some(rule) = &self.rules.value_changed.0
            && !rule_input.was_in_vain()
            && let Some(reason) = rule.check(&rule_input.amounts)
        {
            flags.add("value_changed", reason);
        }
        if let (Some(rule), Some(kind)) = (&self.rules.sensitive_deletion.0, &rule_input.entity_type)
            && rule_input.has_verb(&DELETING)
            && rule.entity_types.iter().any(|sensitive| is_same_kind(sensitive, kind))
        {
            let reason = if rule_input.was_in_vain() {
                format!("{kind}: deletion attempted")
            } else {
                format!("{kind} deleted")
            };
            flags.add("sensitive_deletion", reason);
        }
    }

    /// Evaluates the rules about times and about recent activity.
    fn check_recent(&mut self, rule_input: &RuleInput, recorded: Timestamp, flags: &mut Flags) {
        let time = rule_input.occurred_at.unwrap_or(recorded);
        let at = time.micros();
        let operations = self.count_operation(rule_input, at);
        if let (Some(rule), Some(user)) = (&self.rules.many_operations.0, &rule_input.user)
            && operations > rule.more_than
        {
            let within = span(rule.within);
            flags.add("many_operations", format!("more than {} operations by {user} within {within}", rule.more_than));
        }
        if let Some(rule) = &self.rules.outside_hours.0
            && rule_input.user.is_some()
            && !self.is_exempt(rule_input)
            && let Some(reason) = rule.check(time)
        {
            flags.add("outside_hours", reason);
        }
        let edits = self.count_edit(rule_input, at);
        if let Some(rule) = &self.rules.repeated_edits.0
            && edits >= rule.at_least
        {
            let within = span(rule.within);
            flags.add("repeated_edits", format!("edited {} times or more within {within}", rule.at_least));
        }
    }

    /// Returns whether an entry is exempt from the activity rules, because a machine account caused it or because it records a
    /// read of the log.
    fn is_exempt(&self, rule_input: &RuleInput) -> bool {
        rule_input.category == READING
            || rule_input.user_type.as_ref().is_some_and(|kind| self.rules.machines.contains(kind))
    }

    fn count_operation(&mut self, rule_input: &RuleInput, at: i64) -> usize {
        let Some(user) =
            rule_input.user.as_ref().filter(|_| self.rules.many_operations.0.is_some() && !self.is_exempt(rule_input))
        else {
            return 0;
        };
        let (count, counted) = self.operations.count(user.as_str(), at);
        self.journal.push(Step::Operation(counted));
        count
    }

    fn count_edit(&mut self, rule_input: &RuleInput, at: i64) -> usize {
        let is_edit = rule_input.has_changes || rule_input.has_verb(&EDITING);
        let (Some(_), Some(kind), Some(id)) =
            (&self.rules.repeated_edits.0, &rule_input.entity_type, &rule_input.entity_id)
        else {
            return 0;
        };
        if !is_edit || rule_input.was_in_vain() || self.is_exempt(rule_input) {
            return 0;
        }
        let (count, counted) = self.edits.count((kind.as_str(), id.as_str()), at);
        self.journal.push(Step::Edit(counted));
        count
    }

    /// Counts a failed login and returns the number of failures within the window; returns zero for any other entry.
    fn count_failure(&mut self, rule_input: &RuleInput, at: i64) -> usize {
        let (Some(_), Some(Login::Failed), Some(network)) =
            (&self.rules.failed_logins.0, rule_input.login(), network_of(rule_input))
        else {
            return 0;
        };
        let (count, counted) = self.failures.count(network.as_str(), at);
        self.journal.push(Step::Failure(counted));
        count
    }

    fn check_login(&mut self, rule_input: &RuleInput, recorded: Timestamp, flags: &mut Flags) {
        let failures = self.count_failure(rule_input, rule_input.occurred_at.unwrap_or(recorded).micros());
        if let Some(rule) = &self.rules.failed_logins.0
            && failures >= rule.at_least
        {
            let (network, within) = (network_of(rule_input).unwrap_or_default(), span(rule.within));
            flags.add(
                "failed_logins",
                format!("{} or more failed logins from {network} within {within}", rule.at_least),
            );
        }
        self.check_new_address(rule_input, recorded, flags);
        self.check_new_device(rule_input, recorded, flags);
    }

    fn check_new_address(&mut self, rule_input: &RuleInput, recorded: Timestamp, flags: &mut Flags) {
        let (Some(rule), Some(Login::Succeeded), Some(user), Some(network)) =
            (&self.rules.new_address.0, rule_input.login(), &rule_input.user, network_of(rule_input))
        else {
            return;
        };
        let days = rule.days;
        let places = [self.logins.key((user.as_str(), network.as_str())), self.logins.key((user.as_str(), ""))];
        if self.is_new(places, rule_input, recorded, days) {
            flags.add("new_address", format!("the first login of {user} from {network} in {days} days"));
        }
    }

    fn check_new_device(&mut self, rule_input: &RuleInput, recorded: Timestamp, flags: &mut Flags) {
        let (Some(rule), Some(Login::Succeeded), Some(user), Some(agent)) =
            (&self.rules.new_device.0, rule_input.login(), &rule_input.user, &rule_input.user_agent)
        else {
            return;
        };
        let (days, device) = (rule.days, device_of(agent));
        // The prefix keeps these keys apart from addresses, which never begin with a control character.
        let places = [
            self.logins.key((user.as_str(), format!("\u{1}{device}").as_str())),
            self.logins.key((user.as_str(), "\u{1}")),
        ];
        if self.is_new(places, rule_input, recorded, days) {
            flags.add("new_device", format!("the first login of {user} with {} in {days} days", agent.trim()));
        }
    }

    /// Returns whether a login is the first in `days` days from its address or device, and remembers the login. A user's very
    /// first login does not count as new, because there is nothing to compare it with.
    fn is_new(&mut self, [place, anywhere]: [Key; 2], rule_input: &RuleInput, recorded: Timestamp, days: u32) -> bool {
        // A login with a time in the future must not be remembered for longer than others.
        let at = rule_input.occurred_at.unwrap_or(recorded).min(recorded).micros();
        let known_for = i64::from(days) * MICROS_PER_DAY;
        let is_known = self.logins.get(place).is_some_and(|last| at.saturating_sub(*last) <= known_for);
        let is_new = !is_known && self.logins.get(anywhere).is_some();
        for key in [place, anywhere] {
            let before = self.logins.get(key).copied();
            self.journal.push(Step::Login { key, before });
            let last = self.logins.entry(key, || at);
            *last = (*last).max(at);
        }
        is_new
    }

    /// Returns the current position in the journal, for [`Self::rollback_to`].
    pub fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Undoes the changes to the memory since `mark`, because the entries that caused them were not recorded.
    pub fn rollback_to(&mut self, mark: usize) {
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

    /// Makes the changes to the memory permanent, because the entries that caused them are on disk.
    pub fn commit(&mut self) {
        self.journal.clear();
    }
}

/// Flags of one entry; reasons are truncated to the limit.
struct Flags(Vec<Flag>);

impl Flags {
    fn in_order(mut self) -> Vec<Flag> {
        self.0.sort_by_key(|flag| RULES.iter().position(|rule| *rule == flag.rule));
        self.0
    }

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
        // Escaping as JSON must not make the reason exceed the space reserved for flags.
        let reason = reason.chars().map(|c| if c.is_control() || matches!(c, '"' | '\\') { '\'' } else { c }).collect();
        self.0.push(Flag { rule: rule.to_owned(), reason });
    }
}

/// Verbs that make an action a deletion or, in `EDITING`, an edit.
const DELETING: [&str; 13] = [
    "delete",
    "deleted",
    "remove",
    "removed",
    "destroy",
    "destroyed",
    "erase",
    "erased",
    "purge",
    "purged",
    "drop",
    "dropped",
    "unregister",
];
const EDITING: [&str; 13] = [
    "update", "updated", "edit", "edited", "change", "changed", "modify", "modified", "patch", "patched", "set",
    "rename", "renamed",
];

/// Compares names, ignoring case and a final plural `s`, so that `User` and `users` match `user`.
fn is_same_kind(sensitive: &str, kind: &str) -> bool {
    let plain = |text: &str| {
        let lower = text.to_lowercase();
        lower.strip_suffix('s').map_or(lower.clone(), str::to_owned)
    };
    plain(sensitive) == plain(kind)
}

impl ValueChanged {
    fn check(&self, amounts: &[Amount]) -> Option<String> {
        amounts.iter().find_map(|amount| {
            let last = amount.field.rsplit(['.', '/']).next().unwrap_or(&amount.field);
            let is_money =
                split_words(last).iter().any(|word| self.fields.iter().any(|money| is_same_kind(money, word)));
            let percent = (amount.new - amount.old).abs() / amount.old.abs() * 100.0;
            // Tolerate the rounding of binary fractions: a change from 1.2 to 1.5 is not more than 25 %.
            if !is_money || percent <= self.over_percent + 1e-9 {
                return None;
            }
            Some(if percent.is_finite() {
                format!("{} changed by {percent:.0} %, more than {} %", amount.field, self.over_percent)
            } else {
                format!("{} changed from zero", amount.field)
            })
        })
    }
}

impl OutsideHours {
    fn check(&self, time: Timestamp) -> Option<String> {
        let local = chrono::DateTime::from_timestamp_micros(time.micros())?.with_timezone(&self.zone);
        let minute = u16::try_from(local.hour() * 60 + local.minute()).ok()?;
        let is_quiet = if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        };
        let clock = local.format("%H:%M");
        if self.weekends && matches!(local.weekday(), Weekday::Sat | Weekday::Sun) {
            return Some(format!("on a weekend: {} {clock} in {}", local.format("%A"), self.zone));
        }
        is_quiet.then(|| {
            let of = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            format!("{clock} in {} is between {} and {}", self.zone, of(self.from), of(self.to))
        })
    }
}

/// Returns the network that a login came from; text that is not an IP address is returned unchanged.
fn network_of(rule_input: &RuleInput) -> Option<String> {
    let address = rule_input.ip_address.as_deref()?;
    let ip = address.parse::<IpAddr>().or_else(|_| address.parse::<SocketAddr>().map(|place| place.ip()));
    Some(ip.map_or_else(|_| address.to_owned(), |ip| network(ip).to_string()))
}

/// Returns a user agent with its numbers masked, because an update of the same program changes them.
fn device_of(agent: &str) -> String {
    let mut device = String::with_capacity(agent.len());
    for word in agent.split_inclusive(|c: char| c.is_whitespace() || "/:;,()".contains(c)) {
        let is_number = word.starts_with(|c: char| c.is_ascii_digit());
        device.push_str(if is_number { "#" } else { word });
    }
    device.trim().to_owned()
}

/// Reduces an IPv6 address to its /64, because one person can have an entire /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests;

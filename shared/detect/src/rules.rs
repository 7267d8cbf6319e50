//! Configuration of the detection rules (docs/flags.md).

use std::time::Duration;

use chrono_tz::Tz;
use serde::{Deserialize, Deserializer};

/// Upper limits of a rule's settings, so that the memory of a rule is bounded.
const COUNT_MAX: usize = 10_000;
const WITHIN_MAX: Duration = Duration::from_hours(24 * 7);
const DAYS_MAX: u32 = 3_650;
/// Maximum number of names in one list of a rule, and maximum bytes of each name.
const NAMES_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 128;
const MINUTES_PER_DAY: u16 = 24 * 60;

/// The detection rules. Each rule can be turned off with `false`, or given other settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// A value that looks like money changed by more than a given percentage.
    pub value_changed: Rule<ValueChanged>,
    /// One user performed more than a given number of operations within a given time.
    pub many_operations: Rule<ManyOperations>,
    /// An action took place outside working hours.
    pub outside_hours: Rule<OutsideHours>,
    /// An entity of a sensitive type was deleted.
    pub sensitive_deletion: Rule<SensitiveDeletion>,
    /// One entity was edited a given number of times within a given time.
    pub repeated_edits: Rule<RepeatedEdits>,
    /// A given number of logins from one address failed within a given time.
    pub failed_logins: Rule<FailedLogins>,
    /// A user logged in from an address that is new for that user.
    pub new_address: Rule<NewAddress>,
    /// A user logged in with a program or device that is new for that user.
    pub new_device: Rule<NewDevice>,
    /// A user acted as another user.
    pub impersonation: Rule<Impersonation>,
    /// Values of `user_type` for accounts that work quickly and around the clock. `many_operations`, `repeated_edits` and
    /// `outside_hours` ignore their entries.
    pub machines: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            value_changed: Rule::default(),
            many_operations: Rule::default(),
            outside_hours: Rule::default(),
            sensitive_deletion: Rule::default(),
            repeated_edits: Rule::default(),
            failed_logins: Rule::default(),
            new_address: Rule::default(),
            new_device: Rule::default(),
            impersonation: Rule::default(),
            machines: ["service", "system", "api_key", "machine"].map(str::to_owned).to_vec(),
        }
    }
}

impl Rules {
    /// Returns rules that never flag an entry.
    pub fn none() -> Self {
        Self {
            value_changed: Rule(None),
            many_operations: Rule(None),
            outside_hours: Rule(None),
            sensitive_deletion: Rule(None),
            repeated_edits: Rule(None),
            failed_logins: Rule(None),
            new_address: Rule(None),
            new_device: Rule(None),
            impersonation: Rule(None),
            machines: Vec::new(),
        }
    }

    /// Checks the settings, and returns a message if one of them is out of range.
    pub fn check(&self) -> Result<(), String> {
        let bursts = [
            ("many_operations", self.many_operations.0.as_ref().map(|r| (r.more_than, r.within))),
            ("repeated_edits", self.repeated_edits.0.as_ref().map(|r| (r.at_least, r.within))),
            ("failed_logins", self.failed_logins.0.as_ref().map(|r| (r.at_least, r.within))),
        ];
        for (name, burst) in bursts {
            let Some((count, within)) = burst else { continue };
            if !(1..=COUNT_MAX).contains(&count) {
                return Err(format!("flags.{name}: the count must be 1 to {COUNT_MAX}, not {count}"));
            }
            if within.is_zero() || within > WITHIN_MAX {
                return Err(format!("flags.{name}.within must be more than zero and at most 7d"));
            }
        }
        if let Some(rule) = &self.value_changed.0
            && !(0.0..=1_000_000.0).contains(&rule.over_percent)
        {
            return Err(format!("flags.value_changed.over_percent must be 0 to 1000000, not {}", rule.over_percent));
        }
        let days = [
            ("new_address", self.new_address.0.as_ref().map(|rule| rule.days)),
            ("new_device", self.new_device.0.as_ref().map(|rule| rule.days)),
        ];
        for (name, days) in days {
            if let Some(days) = days.filter(|days| !(1..=DAYS_MAX).contains(days)) {
                return Err(format!("flags.{name}.days must be 1 to {DAYS_MAX}, not {days}"));
            }
        }
        let names = [
            ("value_changed.fields", self.value_changed.0.as_ref().map(|r| &r.fields)),
            ("sensitive_deletion.entity_types", self.sensitive_deletion.0.as_ref().map(|r| &r.entity_types)),
            ("machines", Some(&self.machines)),
        ];
        for (name, list) in names {
            if list.is_some_and(|l| l.len() > NAMES_MAX || l.iter().any(|n| n.is_empty() || n.len() > NAME_BYTES_MAX)) {
                return Err(format!("flags.{name} must have at most {NAMES_MAX} names of 1 to {NAME_BYTES_MAX} bytes"));
            }
        }
        Ok(())
    }

    /// Number of days for which the login rules remember a login; `None` if they are off.
    pub fn login_days(&self) -> Option<u32> {
        let days =
            [self.new_address.0.as_ref().map(|rule| rule.days), self.new_device.0.as_ref().map(|rule| rule.days)];
        days.into_iter().flatten().max()
    }

    /// Returns the longest window of the rules that count events.
    pub fn reach(&self) -> Duration {
        let within = [
            self.many_operations.0.as_ref().map(|r| r.within),
            self.repeated_edits.0.as_ref().map(|r| r.within),
            self.failed_logins.0.as_ref().map(|r| r.within),
        ];
        within.into_iter().flatten().max().unwrap_or_default()
    }
}

/// Settings of a rule, or `None` if the rule is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule<T>(pub Option<T>);

impl<T: Default> Default for Rule<T> {
    fn default() -> Self {
        Self(Some(T::default()))
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Rule<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum RawRule<T> {
            Switch(bool),
            Numbers(T),
        }
        Ok(match RawRule::deserialize(deserializer)? {
            RawRule::Switch(false) => Self(None),
            RawRule::Switch(true) => Self::default(),
            RawRule::Numbers(rule) => Self(Some(rule)),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValueChanged {
    pub over_percent: f64,
    /// Words that mark a changed field as an amount of money if its name contains one of them.
    pub fields: Vec<String>,
}

impl Default for ValueChanged {
    fn default() -> Self {
        let fields = [
            "amount", "balance", "budget", "cost", "credit", "debit", "discount", "fee", "limit", "payment", "price",
            "rate", "refund", "salary", "tax", "total", "wage",
        ];
        Self { over_percent: 25.0, fields: fields.map(str::to_owned).to_vec() }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManyOperations {
    pub more_than: usize,
    #[serde(deserialize_with = "duration")]
    pub within: Duration,
}

impl Default for ManyOperations {
    fn default() -> Self {
        Self { more_than: 20, within: Duration::from_mins(5) }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutsideHours {
    /// Minutes after midnight at which the quiet hours begin and end. The quiet hours may extend past midnight.
    #[serde(deserialize_with = "time_of_day")]
    pub from: u16,
    #[serde(deserialize_with = "time_of_day")]
    pub to: u16,
    /// A name of the IANA time zone database.
    #[serde(deserialize_with = "zone")]
    pub zone: Tz,
    /// Whether Saturday and Sunday count entirely as outside working hours.
    pub weekends: bool,
}

impl Default for OutsideHours {
    fn default() -> Self {
        Self { from: 22 * 60, to: 6 * 60, zone: Tz::UTC, weekends: false }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensitiveDeletion {
    /// Values of `entity_type` for entities whose deletion is flagged.
    pub entity_types: Vec<String>,
}

impl Default for SensitiveDeletion {
    fn default() -> Self {
        let types = [
            "account",
            "backup",
            "certificate",
            "domain",
            "expense",
            "invoice",
            "key",
            "order",
            "payment",
            "permission",
            "policy",
            "role",
            "token",
            "user",
        ];
        Self { entity_types: types.map(str::to_owned).to_vec() }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepeatedEdits {
    pub at_least: usize,
    #[serde(deserialize_with = "duration")]
    pub within: Duration,
}

impl Default for RepeatedEdits {
    fn default() -> Self {
        Self { at_least: 5, within: Duration::from_mins(10) }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailedLogins {
    pub at_least: usize,
    #[serde(deserialize_with = "duration")]
    pub within: Duration,
}

impl Default for FailedLogins {
    fn default() -> Self {
        Self { at_least: 5, within: Duration::from_mins(10) }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewAddress {
    /// Number of days after the last login from an address during which the address counts as known.
    pub days: u32,
}

impl Default for NewAddress {
    fn default() -> Self {
        Self { days: 90 }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewDevice {
    /// Number of days after the last login with a device during which the device counts as known.
    pub days: u32,
}

impl Default for NewDevice {
    fn default() -> Self {
        Self { days: 90 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Impersonation {}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|e| wrong(format!("{text:?} is not a duration such as 5m: {e}")))
}

fn time_of_day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let text = String::deserialize(deserializer)?;
    let minutes = text.split_once(':').and_then(|(hour, minute)| {
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (minute < 60 && hour <= 24).then(|| hour * 60 + minute).filter(|minutes| *minutes <= MINUTES_PER_DAY)
    });
    minutes.ok_or_else(|| wrong(format!("{text:?} is not a time of day such as \"22:00\"")))
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| wrong(format!("{text:?} is not a time zone such as \"Europe/Berlin\" or \"UTC\"")))
}

fn wrong<E: serde::de::Error>(problem: String) -> E {
    E::custom(problem)
}

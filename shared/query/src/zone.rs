//! Time zone of dates and times that are typed without one.

use std::fmt;

use chrono::{FixedOffset, LocalResult, NaiveDateTime, TimeZone, Utc};

use piperoll_format::time::Timestamp;

/// UTC, a fixed offset from it, or a zone of the IANA Time Zone Database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Zone {
    #[default]
    Utc,
    Fixed(FixedOffset),
    /// Not used by the verifier, which parses no times that people typed.
    Named(chrono_tz::Tz),
}

/// Error for text that is not a time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time zone: write UTC, an offset such as +02:00, or a name such as Europe/Berlin")]
pub struct ZoneError(String);

/// The time from which ages are counted, and the zone in which dates are read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub at: Timestamp,
    pub zone: Zone,
}

impl From<Timestamp> for Now {
    fn from(at: Timestamp) -> Self {
        Self { at, zone: Zone::Utc }
    }
}

impl Zone {
    /// Maximum length of a name; the longest one of the database has 32 characters.
    const TEXT_BYTES_MAX: usize = 64;

    /// Reads `UTC`, `Z`, an offset as in RFC 3339, or a name of the IANA Time Zone Database.
    pub fn parse(text: &str) -> Result<Self, ZoneError> {
        let wrong = || ZoneError(text.chars().take(Self::TEXT_BYTES_MAX).collect());
        if matches!(text, "UTC" | "utc" | "Z" | "z") {
            return Ok(Self::Utc);
        }
        if text.starts_with(['+', '-']) {
            // chrono parses an offset as `%:z`, which accepts nothing else.
            return text.parse::<FixedOffset>().map(Self::Fixed).map_err(|_| wrong());
        }
        if text.len() <= Self::TEXT_BYTES_MAX
            && let Ok(zone) = text.parse()
        {
            return Ok(Self::Named(zone));
        }
        Err(wrong())
    }

    /// Converts `clock`, a local time in this zone, to a point in time. A local time that occurs twice, because the clock was set
    /// back, means its first occurrence. One that was skipped, because the clock was set forward, is converted as if the clock
    /// had not been changed.
    pub fn moment(self, clock: NaiveDateTime) -> Timestamp {
        let micros = match self {
            Self::Utc => clock.and_utc().timestamp_micros(),
            Self::Fixed(offset) => earliest(offset, clock),
            Self::Named(zone) => earliest(zone, clock),
        };
        Timestamp::from_micros(micros)
    }

    /// Returns the local time in this zone, and the zone's offset from UTC in seconds.
    pub fn clock(self, at: Timestamp) -> (NaiveDateTime, i32) {
        use chrono::Offset as _;
        let utc = at.to_chrono().naive_utc();
        let offset = match self {
            Self::Utc => Utc.fix(),
            Self::Fixed(offset) => offset,
            Self::Named(zone) => zone.offset_from_utc_datetime(&utc).fix(),
        };
        (utc + offset, offset.local_minus_utc())
    }
}

fn earliest<Z: TimeZone>(zone: Z, clock: NaiveDateTime) -> i64 {
    match zone.from_local_datetime(&clock) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => time.timestamp_micros(),
        LocalResult::None => {
            // Use the offset before the gap: that of three hours earlier. If that time is in a gap too, read the time as UTC.
            let hour = chrono::TimeDelta::hours(3);
            let before = zone.from_local_datetime(&(clock - hour)).earliest();
            before.map_or_else(|| clock.and_utc().timestamp_micros(), |before| (before + hour).timestamp_micros())
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utc => f.write_str("UTC"),
            Self::Fixed(offset) => write!(f, "{offset}"),
            Self::Named(zone) => f.write_str(zone.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: &str, clock: &str) -> String {
        let clock = NaiveDateTime::parse_from_str(clock, "%Y-%m-%d %H:%M").expect("a time");
        Zone::parse(zone).expect(zone).moment(clock).to_text()
    }

    #[test]
    fn a_time_is_read_in_its_zone() {
        assert_eq!(at("UTC", "2026-04-15 08:00"), "2026-04-15T08:00:00.000000Z");
        assert_eq!(at("+02:00", "2026-04-15 08:00"), "2026-04-15T06:00:00.000000Z");
        assert_eq!(at("-0330", "2026-04-15 08:00"), "2026-04-15T11:30:00.000000Z");
    }
    #[test]
    fn clocks_that_are_changed_have_an_answer() {
        assert_eq!(at("Europe/Berlin", "2026-01-15 08:00"), "2026-01-15T07:00:00.000000Z");
        assert_eq!(at("Europe/Berlin", "2026-07-15 08:00"), "2026-07-15T06:00:00.000000Z");
        // A time that occurs twice, and one that never occurs.
        assert_eq!(at("Europe/Berlin", "2026-10-25 02:30"), "2026-10-25T00:30:00.000000Z");
        assert_eq!(at("Europe/Berlin", "2026-03-29 02:30"), "2026-03-29T01:30:00.000000Z");
        // A whole day that the zone skipped.
        assert_eq!(at("Pacific/Apia", "2011-12-30 12:00"), "2011-12-30T12:00:00.000000Z");
        assert!(Zone::parse("Europe/Berlin").is_ok_and(|zone| zone.to_string() == "Europe/Berlin"));
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        for text in ["", "CEST+", "+2", "+25:00", "Europe/Nowhere", "local"] {
            assert!(Zone::parse(text).is_err(), "{text}");
        }
    }
}

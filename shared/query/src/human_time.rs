//! Parses times that people type: with or without a zone, or as ages.

use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime};

use crate::zone::{Now, Zone};
use piperoll_format::time::{TIME_ADVICE, TimeError, Timestamp, parse_duration};

const UNIT_ADVICE: &str = "months and years differ in length; write weeks, days, hours, minutes or seconds (4w, 30d, 24h, 15m, 30s), or a date";

/// Parses a time as people type it: RFC 3339, a date, a date and time, `now`, or an age. A time without a zone is read in the
/// zone of `now`.
pub fn parse(text: &str, now: impl Into<Now>) -> Result<Timestamp, TimeError> {
    let (text, now) = (text.trim(), now.into());
    if text == "now" {
        return Ok(now.at);
    }
    if let Ok(time) = Timestamp::parse_rfc3339(text) {
        return Ok(time);
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(now.zone.moment(time));
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(from_date(date, now.zone));
    }
    age(text).map(|age| now.at.minus(age))
}

/// Parses an expiry: RFC 3339, a date, or a time *from now* such as `90d`.
pub fn parse_expiry(text: &str, now: impl Into<Now>) -> Result<Timestamp, TimeError> {
    let now = now.into();
    match age(text.trim()) {
        Ok(ahead) => Ok(now.at.plus_micros(i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX))),
        Err(error) if error.advice == UNIT_ADVICE => Err(error),
        Err(_) => parse(text, now),
    }
}

fn from_date(date: NaiveDate, zone: Zone) -> Timestamp {
    zone.moment(date.and_hms_opt(0, 0, 0).unwrap_or_default())
}

/// Returns the half-open range of a bare date, or `None` when `text` is not a bare date.
pub fn day_range(text: &str) -> Option<(Timestamp, Timestamp)> {
    day_range_in(text, Zone::Utc)
}

/// Like [`day_range`], for a day of the given time zone.
pub fn day_range_in(text: &str, zone: Zone) -> Option<(Timestamp, Timestamp)> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some((from_date(date, zone), from_date(date.succ_opt()?, zone)))
}

/// Parses an age as people type it. Units without a fixed length are refused: `parse_duration` reads `1M` as a month of 30.44
/// days, but `1m` as a minute.
fn age(text: &str) -> Result<Duration, TimeError> {
    let error = |advice| TimeError { text: text.chars().take(64).collect(), advice };
    let units = text.split(|c: char| c.is_ascii_digit() || c.is_whitespace()).filter(|unit| !unit.is_empty());
    let vague = ["M", "month", "months", "mo", "mon", "y", "yr", "yrs", "year", "years", "Y"];
    if text.starts_with(|c: char| c.is_ascii_digit()) && units.clone().any(|unit| vague.contains(&unit)) {
        return Err(error(UNIT_ADVICE));
    }
    parse_duration(text).ok_or_else(|| error(TIME_ADVICE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::time::span;

    #[test]
    fn people_may_write_ages_and_dates() {
        let now = Timestamp::parse_rfc3339("2026-04-15T08:00:00Z").expect("a time");
        let week = parse("7d", now).expect("an age");
        assert_eq!(week.to_text(), "2026-04-08T08:00:00.000000Z");
        assert_eq!(parse("2026-04-01", now).expect("a date").to_text(), "2026-04-01T00:00:00.000000Z");
        assert!(parse("yesterdayish", now).is_err());
        for vague in ["1M", "2 months", "1y", "1year", "1M 2d", "3Y"] {
            let error = parse(vague, now).expect_err(vague).to_string();
            assert!(error.contains("differ in length"), "{error}");
            assert!(parse_expiry(vague, now).is_err());
        }
        assert_eq!(parse("1m", now).expect("a minute").to_text(), "2026-04-15T07:59:00.000000Z");
        for (seconds, words) in
            [(300, "5 min"), (86_400, "1 day"), (604_800, "7 days"), (5_400, "1 h 30 min"), (30, "30 s"), (0, "0 s")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), words);
        }
        assert_eq!(parse("1h30m", now).expect("an age").to_text(), "2026-04-15T06:30:00.000000Z");
    }
}

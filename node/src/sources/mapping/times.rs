//! Converts times in the various formats of other systems to RFC 3339.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime};
use piperoll_format::time::Timestamp;
use serde::Deserialize;

/// Range of accepted times in microseconds since 1970: the years 1970 to 9999. A number that gives a time outside this range is
/// in a unit other than the one that the mapping states.
const MICROS_MIN: i128 = 0;
const MICROS_MAX: i128 = 253_402_300_799_999_999;
/// Number of digits of the seconds since 1970 in the years 2001 to 2286. Milliseconds, microseconds and nanoseconds have more
/// digits (`unit_of`).
const DIGITS_OF_SECONDS: usize = 10;
/// Forms with a time zone, such as those of the access logs of Apache and nginx, tried after RFC 3339.
const ZONED: [&str; 4] =
    ["%d/%b/%Y:%H:%M:%S%.f %z", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f %z", "%a %b %d %H:%M:%S%.f %Y %z"];
/// Abbreviations that have only one offset in the current IANA Time Zone Database. Other abbreviations are used for several
/// zones: CST also in China, PST also in the Philippines, CDT also in Cuba.
const ABBREVIATIONS: [(&str, &str); 13] = [
    ("UTC", "+0000"),
    ("GMT", "+0000"),
    ("WET", "+0000"),
    ("WEST", "+0100"),
    ("CET", "+0100"),
    ("CEST", "+0200"),
    ("EET", "+0200"),
    ("EEST", "+0300"),
    ("EST", "-0500"),
    ("EDT", "-0400"),
    ("MST", "-0700"),
    ("MDT", "-0600"),
    ("PDT", "-0700"),
];
/// Forms without a time zone.
const LOCAL: [&str; 8] = [
    "%B %d, %Y %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%d/%b/%Y:%H:%M:%S%.f",
    "%a %b %d %H:%M:%S%.f %Y",
    "%m/%d/%Y %I:%M:%S%.f %p",
    "%b %d, %Y %I:%M:%S%.f %p",
];

/// Unit of a number, or `Auto` if the form is detected from the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Form {
    /// A text in any known form, or a number whose unit follows from its number of digits.
    Auto,
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Form {
    fn per_second(self) -> Option<i128> {
        match self {
            Self::Auto => None,
            Self::Seconds => Some(1),
            Self::Millis => Some(1_000),
            Self::Micros => Some(1_000_000),
            Self::Nanos => Some(1_000_000_000),
        }
    }
}

/// Parses a time. `zone` applies to times without a time zone.
///
/// # Errors
/// Returns a description of what is wrong with the time; the description does not contain the value.
pub(super) fn parse(text: &str, form: Form, zone: Option<FixedOffset>) -> Result<String, String> {
    let text = text.trim();
    if let Some(per_second) = form.per_second() {
        return from_number(text, per_second).unwrap_or_else(|| Err("is not a number".to_owned()));
    }
    // Keep the time as it was written, with its zone.
    if Timestamp::parse_rfc3339(text).is_ok() && text.as_bytes().get(10) == Some(&b'T') {
        return Ok(text.to_owned());
    }
    let digits = text.split('.').next().unwrap_or_default().len();
    if let Some(number) = from_number(text, unit_of(digits)) {
        return number;
    }
    // .NET writes milliseconds in this form.
    if let Some(number) = text
        .strip_prefix("/Date(")
        .and_then(|rest| rest.strip_suffix(")/"))
        .and_then(|number| from_number(number, 1_000))
    {
        return number;
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let zoned = bare.rsplit_once(' ').and_then(|(time, name)| {
        let (_, offset) = ABBREVIATIONS.iter().find(|(abbreviation, _)| *abbreviation == name)?;
        Some(format!("{time} {offset}"))
    });
    // Zones without an abbreviation are named by their offset in hours.
    let hours = bare.rsplit_once(' ').filter(|(_, name)| {
        name.len() == 3 && name.starts_with(['+', '-']) && name[1..].bytes().all(|byte| byte.is_ascii_digit())
    });
    let zoned = zoned.or_else(|| hours.map(|(time, hours)| format!("{time} {hours}00")));
    let bare = zoned.unwrap_or_else(|| bare.to_owned());
    if let Some(time) = DateTime::parse_from_rfc3339(&bare)
        .ok()
        .or_else(|| ZONED.iter().find_map(|form| DateTime::parse_from_str(&bare, form).ok()))
    {
        return Ok(written(&time));
    }
    let with_z = bare.strip_suffix('Z').unwrap_or(&bare);
    let local = LOCAL.iter().find_map(|form| NaiveDateTime::parse_from_str(with_z, form).ok());
    let local =
        local.or_else(|| NaiveDate::parse_from_str(with_z, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0)));
    let Some(local) = local else { return Err("is not in a known time format".to_owned()) };
    let zone = if with_z == bare { zone } else { FixedOffset::east_opt(0) };
    let Some(zone) = zone else {
        return Err("has no time zone; set `zone`, such as \"UTC\" or \"+02:00\"".to_owned());
    };
    match local.and_local_timezone(zone).single() {
        Some(time) => Ok(written(&time)),
        None => Err("is not a valid time in this zone".to_owned()),
    }
}

fn written(time: &DateTime<FixedOffset>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn unit_of(digits: usize) -> i128 {
    match digits {
        0..=DIGITS_OF_SECONDS => 1,
        11..=13 => 1_000,
        14..=16 => 1_000_000,
        _ => 1_000_000_000,
    }
}

/// Converts a number in a unit with `per_second` units per second; `None` if the text is not a number.
fn from_number(text: &str, per_second: i128) -> Option<Result<String, String>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    let out_of_range = || Err("is out of range (years 1970 to 9999); check its unit".to_owned());
    // Keep twelve fractional digits; no clock provides more.
    let Ok(whole) = whole.parse::<i128>() else { return Some(out_of_range()) };
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(12).collect();
    let fraction: i128 = fraction.parse().unwrap_or(0);
    let Some(scaled) = whole.checked_mul(1_000_000) else { return Some(out_of_range()) };
    let micros = scaled / per_second + fraction / (1_000_000 * per_second);
    if !(MICROS_MIN..=MICROS_MAX).contains(&micros) {
        return Some(out_of_range());
    }
    // The range that was just checked is within that of i64.
    Some(Ok(Timestamp::from_micros(i64::try_from(micros).unwrap_or(0)).to_text()))
}

/// Parses `UTC`, `Z`, `GMT`, or an offset such as `+02:00`.
pub(super) fn parse_zone(text: &str) -> Result<FixedOffset, String> {
    if ["UTC", "Z", "GMT"].contains(&text) {
        return FixedOffset::east_opt(0).ok_or_else(|| "no such zone".to_owned());
    }
    text.parse::<FixedOffset>()
        .map_err(|_| format!("{text:?} is not a zone; write \"UTC\" or an offset such as \"+02:00\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_many_systems_are_read() {
        for (text, wanted) in [
            ("2026-04-15T08:00:00Z", "2026-04-15T08:00:00Z"),
            ("2026-04-15T08:00:00.123456+02:00", "2026-04-15T08:00:00.123456+02:00"),
            ("2017-03-15T12:00:00.123456+0000", "2017-03-15T12:00:00.123456Z"),
            ("2017-03-15T12:00:00-0730", "2017-03-15T12:00:00-07:30"),
            ("2026-04-15 08:00:00+00:00", "2026-04-15T08:00:00Z"),
            ("2026-04-15 08:00:00.5 +0200", "2026-04-15T08:00:00.500+02:00"),
            ("2026-04-15 08:00:00.123 UTC", "2026-04-15T08:00:00.123Z"),
            ("2026-11-03 10:14:06.501 CET", "2026-11-03T10:14:06.501+01:00"),
            ("/Date(1692989148721)/", "2023-08-25T18:45:48.721000Z"),
            ("31/Jan/2023:07:59:58 +0000", "2023-01-31T07:59:58Z"),
            ("[31/Jan/2023:07:59:58 +0100]", "2023-01-31T07:59:58+01:00"),
            ("1364481363.243", "2013-03-28T14:36:03.243000Z"),
            ("1692989148721", "2023-08-25T18:45:48.721000Z"),
            ("1692989148721123", "2023-08-25T18:45:48.721123Z"),
            ("1692989148721123456", "2023-08-25T18:45:48.721123Z"),
        ] {
            assert_eq!(parse(text, Form::Auto, None).as_deref(), Ok(wanted), "{text}");
        }
        let zone = parse_zone("+02:00").ok();
        for (text, wanted) in [
            ("2023-05-02T18:02:13", "2023-05-02T18:02:13+02:00"),
            ("2021-08-03 13:24:21.5", "2021-08-03T13:24:21.500+02:00"),
            ("2021-08-03", "2021-08-03T00:00:00+02:00"),
            ("2021-08-03 13:24:21Z", "2021-08-03T13:24:21Z"),
            ("8/3/2021 1:24:21 PM", "2021-08-03T13:24:21+02:00"),
        ] {
            let error = parse(text, Form::Auto, None);
            assert!(error.is_ok() == text.ends_with('Z'), "{text}: {error:?}");
            assert_eq!(parse(text, Form::Auto, zone).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn numbers_are_times_in_the_unit_that_is_said_or_none() {
        for (text, form, wanted) in [
            ("0", Form::Seconds, Some("1970-01-01T00:00:00.000000Z")),
            ("1364481363", Form::Seconds, Some("2013-03-28T14:36:03.000000Z")),
            ("1364481363.2", Form::Seconds, Some("2013-03-28T14:36:03.200000Z")),
            ("1692989148721", Form::Millis, Some("2023-08-25T18:45:48.721000Z")),
            ("1692989148721.5", Form::Millis, Some("2023-08-25T18:45:48.721500Z")),
            ("1692989148721123999", Form::Nanos, Some("2023-08-25T18:45:48.721123Z")),
            ("1692989148721", Form::Seconds, None),
            ("99999999999999999999999999999999999999999999", Form::Seconds, None),
            ("-1", Form::Seconds, None),
            ("1e9", Form::Seconds, None),
            ("2023-05-02T18:02:13Z", Form::Seconds, None),
            ("", Form::Micros, None),
        ] {
            assert_eq!(parse(text, form, None).ok().as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn zones_are_named_or_counted() {
        assert_eq!(parse_zone("UTC").map(|zone| zone.local_minus_utc()), Ok(0));
        assert_eq!(parse_zone("-07:30").map(|zone| zone.local_minus_utc()), Ok(-27_000));
        assert!(parse_zone("Europe/Berlin").is_err());
    }
}

//! Parses values with a format of their own: addresses, row numbers and times. Both versions of the language use them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::test::TimeRange;
use crate::human_time;
use crate::zone::{Now, Zone};
use piperoll_format::time::Timestamp;

/// Error message without a position, which the caller adds.
type Result<T> = std::result::Result<T, String>;

const BACKWARDS: &str = "the start of this range is after its end";

/// Parses an address or a network.
pub(super) fn net(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    text.parse::<IpNet>().ok().map(|net| net.trunc())
}

/// Parses the network of `203.0.113.*` or `2001:db8:*`.
pub(super) fn net_of_wildcard(text: &str) -> Option<IpNet> {
    if let Some(groups) = text.strip_suffix(":*").filter(|_| !text.contains("::")) {
        let groups: Vec<u16> =
            groups.split(':').map(|group| u16::from_str_radix(group, 16).ok()).collect::<Option<_>>()?;
        let mut all = [0u16; 8];
        all[..7].get_mut(..groups.len())?.copy_from_slice(&groups);
        let prefix = u8::try_from(groups.len() * 16).ok()?;
        return Ipv6Net::new(Ipv6Addr::from(all), prefix).ok().map(IpNet::from);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let known = parts.iter().take_while(|part| **part != "*").count();
    if known == 0
        || known == 4
        || parts.len() > 4
        || parts[known..].iter().any(|part| *part != "*")
        || known == parts.len()
    {
        return None;
    }
    let mut octets = [0u8; 4];
    for (octet, part) in octets.iter_mut().zip(&parts[..known]) {
        let is_plain = part.len() == 1 || !part.starts_with('0');
        *octet = part.parse().ok().filter(|_| is_plain && part.bytes().all(|byte| byte.is_ascii_digit()))?;
    }
    Ipv4Net::new(Ipv4Addr::from(octets), u8::try_from(known * 8).ok()?).ok().map(IpNet::from)
}

/// Parses a range from one address to another.
pub(super) fn ip_range(from: &str, to: &str) -> Result<(IpAddr, IpAddr)> {
    let address = |text: &str| {
        text.parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| {
            format!("{text:?} is not an address; a range has an address on both sides, as in 10.0.0.1..10.0.0.9")
        })
    };
    let (from, to) = (address(from)?, address(to)?);
    if from.is_ipv4() != to.is_ipv4() {
        return Err("the two addresses of a range must both be IPv4 or both IPv6".to_owned());
    }
    if from > to { Err(BACKWARDS.to_owned()) } else { Ok((from, to)) }
}

/// Parses a row number or a range of them, both ends included.
pub(super) fn seq(text: &str) -> Result<(u64, u64)> {
    let number = |text: &str, open: u64| match text {
        "" => Ok(open),
        text => text.parse().map_err(|_| "seq must be a number or a range such as 10..20".to_owned()),
    };
    let (from, to) = match text.split_once("..") {
        Some((a, b)) => (number(a, 0)?, number(b, u64::MAX)?),
        None => (number(text, 0)?, number(text, 0)?),
    };
    if from > to { Err(BACKWARDS.to_owned()) } else { Ok((from, to)) }
}

/// Parses a day, or a range of times.
pub(super) fn occurred(text: &str, now: Now) -> Result<TimeRange> {
    let time = |text: &str| human_time::parse(text, now).map_err(|e| e.to_string());
    let (from, to) = match text.split_once("..") {
        Some((a, b)) => {
            (if a.is_empty() { Timestamp::MIN } else { time(a)? }, if b.is_empty() { Timestamp::MAX } else { time(b)? })
        }
        None => human_time::day_range_in(text, now.zone).ok_or_else(|| {
            "occurred must be a day (2026-04-15) or a range (2026-04-15T08:00:00Z..2026-04-15T09:00:00Z)".to_owned()
        })?,
    };
    if from > to {
        return Err(BACKWARDS.to_owned());
    }
    let is_day = !text.contains("..") && now.zone == Zone::Utc;
    Ok(if is_day { TimeRange { text: text.to_owned(), from, to } } else { time_range(from, to) })
}

/// Builds a range whose text contains absolute times, so that a printed filter that was typed with ages or local dates keeps its
/// meaning on later days and in other time zones.
pub(super) fn time_range(from: Timestamp, to: Timestamp) -> TimeRange {
    let text = match (from == Timestamp::MIN, to == Timestamp::MAX) {
        (true, true) => "..".to_owned(),
        (true, false) => format!("..{to}"),
        (false, true) => format!("{from}.."),
        (false, false) => format!("{from}..{to}"),
    };
    TimeRange { text, from, to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_of_an_address_make_a_network() {
        for (text, expected) in [
            ("203.0.113.*", Some("203.0.113.0/24")),
            ("10.*", Some("10.0.0.0/8")),
            ("10.1.*.*", Some("10.1.0.0/16")),
            ("2001:db8:*", Some("2001:db8::/32")),
            ("10.1.2*", None),
            ("*.1.2.3", None),
            ("10.*.3.*", None),
            ("10.1.2.3.*", None),
            ("256.*", None),
            ("010.*", None),
            ("2001::1:*", None),
            ("*", None),
            ("1:2:3:4:5:6:7:8:*", None),
        ] {
            assert_eq!(net_of_wildcard(text).map(|net| net.to_string()).as_deref(), expected, "{text}");
        }
    }
}

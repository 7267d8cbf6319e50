//! Determines the client's address when requests come through proxies.
//!
//! Every proxy appends the address that connected to it to the right end of a list. Read from the right, the first address that is not a
//! trusted proxy is the client; everything left of it was written by that client and cannot be trusted.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

/// Maximum number of addresses that are read; a longer list is a forgery or a loop.
const HOPS_MAX: usize = 32;
/// Maximum number of bytes that are read from the right end of the header.
const BYTES_MAX: usize = 8 * 1024;

/// The header that the trusted proxies write. All others are ignored, because a client could have sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `X-Real-IP`, one address.
    XRealIp,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The addresses of trusted proxies, and the header that they write.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: ProxyHeader,
}

impl TrustedProxies {
    /// Trusts no proxy: the client is the peer of the connection.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Trusts proxies in these networks.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>, header: ProxyHeader) -> Self {
        Self { networks: networks.into_iter().collect(), header }
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    /// Returns the client's address: the rightmost one that is not a trusted proxy. If the list ends or becomes unreadable before
    /// such an address is found, returns the leftmost address that could be read.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut known = peer.to_canonical();
        let name = match self.header {
            ProxyHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ProxyHeader::XRealIp => HeaderName::from_static("x-real-ip"),
            ProxyHeader::Forwarded => FORWARDED,
        };
        let (mut hops, mut bytes) = (0, 0);
        // Several lines of one header form one list. Read the list from the right, and only the part that trusted proxies wrote.
        for line in headers.get_all(name).iter().collect::<Vec<_>>().into_iter().rev() {
            let mut rest = Some(line.as_bytes());
            while let Some(left) = rest {
                if !self.trusts(known) || hops == HOPS_MAX {
                    return known;
                }
                let (element, before) = self.last_element(left);
                hops += 1;
                bytes += element.len();
                if bytes > BYTES_MAX {
                    return known;
                }
                let element = std::str::from_utf8(element).ok();
                let address = match self.header {
                    ProxyHeader::Forwarded => element.and_then(forwarded_for).and_then(address),
                    _ => element.and_then(address),
                };
                let Some(address) = address else { return known };
                known = address;
                rest = before;
            }
        }
        known
    }

    /// Splits off the last element, which the last proxy added, and returns it and the rest. A comma inside quotes does not
    /// separate elements. An unclosed quote in an earlier element was written by another sender and has no effect on the last
    /// element.
    fn last_element<'a>(&self, line: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
        if self.header == ProxyHeader::XRealIp {
            return (line, None);
        }
        let mut end = line.len();
        while let Some(comma) = line[..end].iter().rposition(|b| *b == b',') {
            let element = &line[comma + 1..];
            if self.header != ProxyHeader::Forwarded || has_whole_quotes(element) {
                return (element, Some(&line[..comma]));
            }
            end = comma;
            if line.len() - end > BYTES_MAX {
                break;
            }
        }
        (line, None)
    }
}

fn has_whole_quotes(element: &[u8]) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in element {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    !is_quoted
}

/// Returns the `for` parameter of one element of `Forwarded`; `None` if there is none or a quote is not closed.
fn forwarded_for(element: &str) -> Option<&str> {
    if !has_whole_quotes(element.as_bytes()) {
        return None;
    }
    let mut is_quoted = false;
    let pairs = element.split(|c| {
        is_quoted ^= c == '"';
        c == ';' && !is_quoted
    });
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"')))
}

/// Parses an address with or without port, brackets and zone; `None` for `unknown` and obfuscated names.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let without_port = match text.strip_prefix('[') {
        Some(inside) => {
            let (ip, rest) = inside.split_once(']')?;
            let is_port = rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
            if !rest.is_empty() && !is_port {
                return None;
            }
            ip
        }
        None => match text.split_once(':') {
            Some((ip, port)) if !port.contains(':') => {
                port.parse::<u16>().ok()?;
                ip
            }
            _ => text,
        },
    };
    let without_zone = without_port.split_once('%').map_or(without_port, |(ip, _)| ip);
    IpAddr::from_str(without_zone).ok().map(|ip| ip.to_canonical())
}

/// Request extension with the address that a request's connection came from, for servers other than axum; axum sets `ConnectInfo`
/// instead.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Returns the address that a request's connection came from. The server sets it in a request extension.
pub(crate) fn peer_of(extensions: &http::Extensions) -> Option<IpAddr> {
    if let Some(Peer(ip)) = extensions.get::<Peer>() {
        return Some(*ip);
    }
    extensions.get::<axum::extract::ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(header: ProxyHeader, name: &'static str, lines: &[&str], peer: &str) -> String {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|net| net.parse().expect("a network"));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).expect("a header"));
        }
        TrustedProxies::new(networks, header).client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn lists_are_walked_from_the_right() {
        for (lines, peer, expected) in [
            // The header of a peer that is not a trusted proxy is ignored.
            (&["192.0.2.9"][..], "198.51.100.1", "198.51.100.1"),
            (&["192.0.2.9"], "10.0.0.1", "192.0.2.9"),
            (&["1.1.1.1, 192.0.2.9, 10.0.0.2"], "10.0.0.1", "192.0.2.9"),
            (&["1.1.1.1", "192.0.2.9", "10.0.0.2"], "10.0.0.1", "192.0.2.9"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.1", "10.0.0.3"),
            (&[], "10.0.0.1", "10.0.0.1"),
            (&[""], "10.0.0.1", "10.0.0.1"),
            (&["unknown, 10.0.0.2"], "10.0.0.1", "10.0.0.2"),
            (&["192.0.2.9, nonsense"], "10.0.0.1", "10.0.0.1"),
            (&["192.0.2.9:4711"], "10.0.0.1", "192.0.2.9"),
            (&["[2001:db8::7]:4711"], "2001:db8:1::1", "2001:db8::7"),
            (&["2001:db8::7"], "10.0.0.1", "2001:db8::7"),
            (&["fe80::1%eth0"], "10.0.0.1", "fe80::1"),
            (&["::ffff:192.0.2.9"], "::ffff:10.0.0.1", "192.0.2.9"),
            (&["010.1.1.1"], "10.0.0.1", "10.0.0.1"),
            (&["192.0.2.9:99999"], "10.0.0.1", "10.0.0.1"),
            (&["[2001:db8::7]x"], "10.0.0.1", "10.0.0.1"),
            (&["1.1.1.1, \u{e4}"], "10.0.0.1", "10.0.0.1"),
            (&["\u{e4}, 192.0.2.9, 10.0.0.2"], "10.0.0.1", "192.0.2.9"),
        ] {
            assert_eq!(client(ProxyHeader::XForwardedFor, "x-forwarded-for", lines, peer), expected, "{lines:?}");
        }
    }

    #[test]
    fn huge_lists_end_somewhere() {
        let many = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(client(ProxyHeader::XForwardedFor, "x-forwarded-for", &[&many], "10.0.0.1"), "10.0.0.2");
        let left = format!("{},192.0.2.9", "x".repeat(20_000));
        assert_eq!(client(ProxyHeader::XForwardedFor, "x-forwarded-for", &[&left], "10.0.0.1"), "192.0.2.9");
        let some = format!("192.0.2.9,{}", vec!["10.0.0.2"; 100].join(","));
        assert_eq!(client(ProxyHeader::XForwardedFor, "x-forwarded-for", &[&some], "10.0.0.1"), "10.0.0.2");
        let lines: Vec<&str> = vec!["10.0.0.2"; 100];
        assert_eq!(client(ProxyHeader::XForwardedFor, "x-forwarded-for", &lines, "10.0.0.1"), "10.0.0.2");
    }

    #[test]
    fn only_the_header_that_our_proxies_write_counts() {
        let forwarded = |line: &str| client(ProxyHeader::Forwarded, "forwarded", &[line], "10.0.0.1");
        assert_eq!(forwarded("for=192.0.2.9"), "192.0.2.9");
        assert_eq!(forwarded("proto=https;For=\"[2001:db8::7]:4711\";by=10.0.0.1"), "2001:db8::7");
        assert_eq!(forwarded("for=1.1.1.1, for=192.0.2.9;host=\"a,b;for=9.9.9.9\", for=10.0.0.2"), "192.0.2.9");
        assert_eq!(forwarded("for=1.1.1.1;x=\", for=198.51.100.9"), "198.51.100.9", "an open quote swallows nothing");
        assert_eq!(forwarded("for=_hidden, for=10.0.0.2"), "10.0.0.2");
        assert_eq!(forwarded("proto=https"), "10.0.0.1");
        assert_eq!(client(ProxyHeader::Forwarded, "x-forwarded-for", &["192.0.2.9"], "10.0.0.1"), "10.0.0.1");
        assert_eq!(client(ProxyHeader::XRealIp, "x-real-ip", &["192.0.2.9"], "10.0.0.1"), "192.0.2.9");
        assert_eq!(client(ProxyHeader::XRealIp, "x-real-ip", &["1.1.1.1", "192.0.2.9"], "10.0.0.1"), "192.0.2.9");
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_fail(text in "[ -~]{0,200}", peer in proptest::num::u32::ANY) {
            let mut headers = HeaderMap::new();
            for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
                headers.append(name, HeaderValue::from_str(&text).expect("printable"));
            }
            for header in [ProxyHeader::XForwardedFor, ProxyHeader::XRealIp, ProxyHeader::Forwarded] {
                let all = TrustedProxies::new(["0.0.0.0/0".parse().expect("a network")], header);
                let _ = all.client(IpAddr::from(peer.to_be_bytes()), &headers);
            }
        }
    }
}

//! Rate limits per address and per client.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use piperoll_format::address::network;

/// Default number of sustained requests per second that one address, and one caller, may send.
pub const PER_ADDRESS_DEFAULT: u32 = 200;
pub const PER_CALLER_DEFAULT: u32 = 100;
/// Size of the burst that is allowed after a quiet period, in seconds' worth of requests.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// Sign-in attempts per minute and address: enough for an office that shares one address, and too few for guessing.
const SIGN_INS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(30).expect("not zero");

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// Sustained requests per second. Bursts of up to `BURST_SECONDS` seconds' worth of requests are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub per_address: NonZeroU32,
    pub per_caller: NonZeroU32,
}

impl Default for Rates {
    fn default() -> Self {
        let rate = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_address: rate(PER_ADDRESS_DEFAULT), per_caller: rate(PER_CALLER_DEFAULT) }
    }
}

/// Counts requests per address and per caller. Idle addresses and callers are removed by `tidy`.
pub(crate) struct RequestLimits {
    addresses: Limiter<IpAddr>,
    callers: Limiter<String>,
    sign_ins: Limiter<IpAddr>,
}

impl RequestLimits {
    pub(crate) fn new(rates: Rates) -> Self {
        let quota = |rate: NonZeroU32| Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST_SECONDS));
        Self {
            addresses: RateLimiter::new(
                quota(rates.per_address),
                HashMapStateStore::default(),
                DefaultClock::default(),
            ),
            callers: RateLimiter::new(quota(rates.per_caller), HashMapStateStore::default(), DefaultClock::default()),
            sign_ins: RateLimiter::new(
                Quota::per_minute(SIGN_INS_PER_MINUTE),
                HashMapStateStore::default(),
                DefaultClock::default(),
            ),
        }
    }

    /// Counts one request from an address, before the caller is known. The error is the time to wait before the next attempt.
    pub(crate) fn address(&self, ip: IpAddr) -> Result<(), Duration> {
        check(&self.addresses, &network(ip))
    }

    /// Counts one request from a known caller.
    pub(crate) fn caller(&self, name: &str) -> Result<(), Duration> {
        check(&self.callers, &name.to_owned())
    }

    /// Counts one sign-in attempt. Called before the attempt is checked, so that a correct guess has to wait as well.
    pub(crate) fn sign_in(&self, ip: IpAddr) -> Result<(), Duration> {
        check(&self.sign_ins, &network(ip))
    }

    /// Removes addresses and callers that have been idle for a long time.
    pub(crate) fn tidy(&self) {
        self.addresses.retain_recent();
        self.callers.retain_recent();
        self.sign_ins.retain_recent();
    }
}

fn check<K: Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K) -> Result<(), Duration> {
    limiter.check_key(key).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
}

//! Applies the rate limit: one token bucket per client and rate-limited endpoint.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

use super::Asked;
use crate::client::{self, Client};
use crate::config::Config;
use crate::limiter::{Decision, Limiter};
use crate::metrics::{Endpoint, Metrics, Verdict};
use crate::response::Deferral;

/// The limiters of the rate-limited endpoints; none if the limit is disabled.
#[derive(Debug)]
pub(super) struct Limits {
    limiters: Vec<(Endpoint, Mutex<Limiter>)>,
    exempt: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
}

impl Limits {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let with_resources = config.resources_interval.is_some().then_some(Endpoint::Resources);
        let endpoints = [Endpoint::Ips, Endpoint::Containers].into_iter().chain(with_resources);
        let per_minute = NonZeroU32::new(config.requests_per_minute);
        let limiters = per_minute.into_iter().flat_map(|per_minute| {
            let limiter = move |endpoint| (endpoint, Mutex::new(Limiter::new(per_minute, now)));
            endpoints.clone().map(limiter)
        });
        Self {
            limiters: limiters.collect(),
            exempt: config.ratelimit_exempt.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }

    /// Takes a token for a new request; returns `None` if the client has no limit. A deferred request has paid already.
    pub(super) fn decide(
        &self,
        endpoint: Endpoint,
        asked: Asked<'_>,
        metrics: &Metrics,
        now: Instant,
    ) -> Option<Decision> {
        let (_, limiter) = self.limiters.iter().find(|(limited, _)| *limited == endpoint)?;
        if self.exempts(asked) {
            return None;
        }
        let client = Client::from(asked.client);
        if asked.deferral != Deferral::First {
            return Some(lock(limiter).standing(client, now));
        }
        let decision = lock(limiter).try_take(client, now);
        let verdict = match decision.is_granted {
            true => Verdict::Granted,
            false => Verdict::Refused,
        };
        metrics.limiter[endpoint][verdict].add(1);
        Some(decision)
    }

    /// Returns whether `RATELIMIT_EXEMPT` contains the client. A trusted proxy is not exempt for a client that it does
    /// not name: a client could otherwise get the proxy's exemption by a forged header.
    fn exempts(&self, asked: Asked<'_>) -> bool {
        let is_in = |blocks: &[IpNet]| client::is_in(blocks, asked.client);
        is_in(&self.exempt) && (asked.is_client_known || !is_in(&self.trusted_proxies))
    }

    /// Returns how many clients have a bucket, for each endpoint.
    pub(super) fn clients(&self) -> Vec<(Endpoint, usize)> {
        let limiters = self.limiters.iter();
        limiters
            .map(|(endpoint, limiter)| (*endpoint, lock(limiter).len()))
            .collect()
    }
}

/// A limiter is consistent after each call, whatever panicked elsewhere.
fn lock(limiter: &Mutex<Limiter>) -> MutexGuard<'_, Limiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

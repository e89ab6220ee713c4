//! Applies the rate limit: one token bucket per client and rate-limited endpoint.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;

use crate::client::{self, Client};
use crate::config::Config;
use crate::gate::Context;
use crate::limiter::{Decision, Limiter};
use crate::metrics::{Endpoint, Metrics, Verdict};
use crate::response::Deferral;

/// The limiters of the rate-limited endpoints; none if the limit is disabled.
#[derive(Debug)]
pub(super) struct Limits {
    limiters: Vec<(Endpoint, Mutex<Limiter>)>,
    exempt: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
}

impl Limits {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>, now: Instant) -> Self {
        let per_minute = NonZeroU32::new(config.requests_per_minute);
        let resources = config.resources_interval.map(|_| Endpoint::Resources);
        let endpoints = [Some(Endpoint::Ips), Some(Endpoint::Containers), resources].into_iter();
        let limiters = endpoints.map(|endpoint| Some((endpoint?, Mutex::new(Limiter::new(per_minute?, now)))));
        Self {
            limiters: limiters.flatten().collect(),
            exempt: config.ratelimit_exempt.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            metrics,
        }
    }

    /// Takes a token for a new request; returns `None` if the client has no limit. A deferred request has paid already.
    pub(super) fn decide(&self, endpoint: Endpoint, context: &Context, now: Instant) -> Option<Decision> {
        let (_, limiter) = self.limiters.iter().find(|(limited, _)| *limited == endpoint)?;
        if self.exempts(context) {
            return None;
        }
        let client = Client::from(context.client);
        if context.deferral != Deferral::First {
            return Some(lock(limiter).standing(client, now));
        }
        let decision = lock(limiter).try_take(client, now);
        let verdict = match decision.is_granted {
            true => Verdict::Granted,
            false => Verdict::Refused,
        };
        self.metrics.limiter[endpoint][verdict].add(1);
        Some(decision)
    }

    /// Returns whether `RATELIMIT_EXEMPT` contains the client. A trusted proxy is not exempt for a client that it does
    /// not name: a client could otherwise get the proxy's exemption by a forged header.
    fn exempts(&self, context: &Context) -> bool {
        let is_in = |blocks: &[IpNet]| client::is_in(blocks, context.client);
        is_in(&self.exempt) && (context.is_client_known || !is_in(&self.trusted_proxies))
    }

    /// Returns how many clients have a bucket, for each endpoint.
    pub(super) fn clients(&self) -> Vec<(Endpoint, usize)> {
        let clients = |(endpoint, limiter): &(Endpoint, Mutex<Limiter>)| (*endpoint, lock(limiter).len());
        self.limiters.iter().map(clients).collect()
    }
}

/// A limiter is consistent after each call, whatever panicked elsewhere.
fn lock(limiter: &Mutex<Limiter>) -> MutexGuard<'_, Limiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

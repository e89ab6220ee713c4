//! Decides what a client may request: one token bucket per client and rate-limited endpoint, and the readers of
//! `/metrics` and `/status`.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Instant;

use super::Service;
use crate::client::{Client, is_in};
use crate::config::Config;
use crate::gate::Context;
use crate::limiter::{Decision, Limiter};
use crate::metrics::{Endpoint, Verdict};
use crate::response::Deferral;
use crate::util::threads::lock;

/// Returns the limiters of the rate-limited endpoints; none if the limit is disabled.
pub(super) fn limiters(config: &Config, now: Instant) -> Vec<(Endpoint, Mutex<Limiter>)> {
    let per_minute = NonZeroU32::new(config.requests_per_minute);
    let resources = config.resources_interval.map(|_| Endpoint::Resources);
    let endpoints = [Some(Endpoint::Ips), Some(Endpoint::Containers), resources].into_iter();
    let limiters = endpoints.map(|endpoint| Some((endpoint?, Mutex::new(Limiter::new(per_minute?, now)))));
    limiters.flatten().collect()
}

impl Service {
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
        self.reporter.metrics.limiter[endpoint][verdict].add(1);
        Some(decision)
    }

    /// Returns whether `RATELIMIT_EXEMPT` contains the client. A trusted proxy is not exempt for a client that it does
    /// not name: a client could otherwise get the proxy's exemption by a forged header.
    fn exempts(&self, context: &Context) -> bool {
        let is_in = |blocks| is_in(blocks, context.client);
        is_in(&self.config.ratelimit_exempt) && (context.is_client_known || !is_in(&self.config.trusted_proxies))
    }

    /// Returns whether this client may read `/metrics` and `/status`: `METRICS_FROM` contains it, or it is the router
    /// itself. `HOST` is the address from which the command `status` connects, unless it is a wildcard.
    pub(super) fn admits(&self, context: &Context, now: Instant) -> bool {
        let (client, is_client_known) = (context.client, context.is_client_known);
        let is_reader = client == self.config.host.to_canonical() || is_in(&self.config.metrics_from, client);
        // A private client may be the operator's Prometheus, which an older version of the router admitted by default.
        if is_client_known
            && !is_reader
            && !self.config.is_metrics_from_set
            && is_private(client)
            && let Some(suppressed) = lock(&self.refusals).admit(now)
        {
            log::warn!(
                client:% = client,
                suppressed;
                "metrics refused: private client got 404, METRICS_FROM=private admits it"
            );
        }
        is_client_known && is_reader
    }
}

/// Returns whether the word `private` covers the address.
fn is_private(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(client) => client.is_private() || client.is_loopback(),
        IpAddr::V6(client) => client.is_unique_local() || client.is_loopback(),
    }
}

//! Decides which clients may read `/metrics` and `/status`: those in `METRICS_FROM`, and the router itself.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::client::is_in;
use crate::config::Config;
use crate::util::log_throttle::{LogRate, LogThrottle};

/// A scraper that is refused repeats its request every few seconds. One line per hour is enough for the operator.
const REFUSAL_LINES: LogRate = LogRate {
    burst: 1,
    refill: Duration::from_secs(3_600),
};

/// The clients that may read `/metrics` and `/status`.
#[derive(Debug)]
pub(super) struct Readers {
    blocks: Vec<IpNet>,
    /// `HOST`: the address from which the command `status` connects, unless it is a wildcard.
    own: IpAddr,
    /// `None` if `METRICS_FROM` is set: the operator has decided then.
    refusals: Option<Mutex<LogThrottle>>,
}

impl Readers {
    /// Logs which clients may read them.
    pub(super) fn new(config: &Config) -> Self {
        let blocks: Vec<String> = config.metrics_from.iter().map(IpNet::to_string).collect();
        log::info!(from:% = blocks.join(","); "metrics readers: these clients may read /metrics and /status");
        Self {
            blocks: config.metrics_from.clone(),
            own: config.host.to_canonical(),
            refusals: (!config.is_metrics_from_set).then(|| Mutex::new(LogThrottle::new(REFUSAL_LINES))),
        }
    }

    /// Returns whether this client may read them. A private client may be the operator's Prometheus, which an older
    /// version of the router admitted by default.
    pub(super) fn admit(&self, client: IpAddr, now: Instant) -> bool {
        let is_admitted = client == self.own || is_in(&self.blocks, client);
        if !is_admitted
            && is_private(client)
            && let Some(refusals) = &self.refusals
            && let Some(suppressed) = refusals.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
        {
            log::warn!(
                client:% = client,
                suppressed;
                "metrics refused: private client got 404, METRICS_FROM=private admits it"
            );
        }
        is_admitted
    }
}

/// Returns whether the word `private` covers the address.
fn is_private(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(client) => client.is_private() || client.is_loopback(),
        IpAddr::V6(client) => client.is_unique_local() || client.is_loopback(),
    }
}

//! Routes, query → answer → JSON.
//!
//! [`Service`] decides what is answered and knows no socket; `workers` has the tiny_http pool that asks it.

mod query;
mod workers;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use serde::Serialize;

use crate::limiter::{Client, Decision, Limiter};
use crate::metrics::{self, Metrics};
use crate::registry::{Purpose, Registry, Summary};
use crate::reply::Reply;
pub(crate) use workers::open;

/// What is counted apart in `/metrics`, in the order of [`Endpoint`].
pub(crate) const ENDPOINTS: [&str; 6] = [
    "/api/v1/ips",
    "/api/v1/containers",
    "/health",
    "/metrics",
    "/openapi.json",
    "other",
];

/// The statuses that a worker answers with.
pub(crate) const STATUSES: [u16; 7] = [200, 204, 400, 404, 405, 429, 500];

/// The description of this API, OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Ips,
    Containers,
    Health,
    Metrics,
    OpenApi,
    Other,
}

impl Endpoint {
    fn of(path: &str) -> Self {
        let at = ENDPOINTS.iter().position(|known| *known == path);
        match at {
            Some(0) => Endpoint::Ips,
            Some(1) => Endpoint::Containers,
            Some(2) => Endpoint::Health,
            Some(3) => Endpoint::Metrics,
            Some(4) => Endpoint::OpenApi,
            _ => Endpoint::Other,
        }
    }
}

/// What a worker is asked, all of it checked by the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// Path and query, or `*`.
    pub(crate) target: &'a str,
    pub(crate) client: IpAddr,
}

/// Answers requests; shared by the workers.
#[derive(Debug)]
pub(crate) struct Service {
    registry: Arc<Registry>,
    /// None when the limit is off.
    limits: Option<Limits>,
    metrics_from: Vec<IpNet>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Limits {
    requests_per_minute: NonZeroU32,
    /// By [`Limited`].
    limiters: [Mutex<Limiter>; LIMITED.len()],
}

/// The endpoints with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    Ips,
    Containers,
}

/// The endpoints with a limit, in the order of [`Limited`].
pub(crate) const LIMITED: [&str; 2] = [ENDPOINTS[0], ENDPOINTS[1]];

impl Service {
    /// `requests_per_minute` 0 turns the limit off.
    pub(crate) fn new(
        registry: Arc<Registry>,
        requests_per_minute: u32,
        metrics_from: Vec<IpNet>,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> Self {
        let limits = NonZeroU32::new(requests_per_minute).map(|requests_per_minute| Limits {
            requests_per_minute,
            limiters: LIMITED.map(|_| Mutex::new(Limiter::new(requests_per_minute, now))),
        });
        Self {
            registry,
            limits,
            metrics_from,
            metrics,
        }
    }

    /// The answer to one request.
    pub(crate) fn answer(&self, asked: Asked<'_>, now: Instant) -> Reply {
        let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
        let endpoint = Endpoint::of(path);
        let reply = self.route(endpoint, query, asked, now);
        self.count(endpoint, reply.status);
        reply
    }

    fn count(&self, endpoint: Endpoint, status: u16) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status) {
            self.metrics.requests[endpoint as usize][at].add(1);
        }
    }

    fn route(&self, endpoint: Endpoint, query: &str, asked: Asked<'_>, now: Instant) -> Reply {
        let is_hidden =
            endpoint == Endpoint::Metrics && !self.metrics_from.iter().any(|net| net.contains(&asked.client));
        if (endpoint == Endpoint::Other && asked.target != "*") || is_hidden {
            return Reply::error(404, "Not found");
        }
        let purpose = match asked.method {
            "OPTIONS" => return Reply::options(),
            "GET" => Purpose::Route,
            "HEAD" => Purpose::Look,
            _ => return Reply::method_not_allowed(),
        };
        let client = Client::from(asked.client);
        match endpoint {
            Endpoint::Ips => self.limited(Limited::Ips, client, now, || self.ips(query, client, purpose)),
            Endpoint::Containers => self.limited(Limited::Containers, client, now, || self.containers()),
            Endpoint::Health => Reply::json(br#"{"status":"healthy"}"#.to_vec()),
            Endpoint::OpenApi => Reply::new(200, "application/json", OPENAPI.as_bytes()),
            Endpoint::Metrics => self.metrics_text(),
            Endpoint::Other => Reply::method_not_allowed(),
        }
    }

    /// Answers if the client's limit allows, and tells it how it stands.
    fn limited(&self, endpoint: Limited, client: Client, now: Instant, answer: impl FnOnce() -> Reply) -> Reply {
        let Some(limits) = &self.limits else {
            return answer();
        };
        let at = endpoint as usize;
        let decision = lock(&limits.limiters[at]).try_take(client, now);
        let reply = match decision.retry_after_seconds() {
            None => {
                self.metrics.limiter_granted[at].add(1);
                answer()
            }
            Some(seconds) => {
                self.metrics.limiter_refused[at].add(1);
                Reply::error(429, "Too many requests").with("Retry-After", seconds.to_string())
            }
        };
        with_limit(reply, limits.requests_per_minute, &decision)
    }

    fn ips(&self, query: &str, client: Client, purpose: Purpose) -> Reply {
        let query = match query::parse(query) {
            Ok(query) => query,
            Err(error) => return Reply::error(400, &error.to_string()),
        };
        let containers = query.containers.iter().map(|id| &**id);
        let nodes = self.registry.answer(containers, query.page, client, purpose);
        let addresses: Vec<&str> = nodes.iter().map(|node| node.as_listed()).collect();
        dynamic(&addresses)
    }

    fn containers(&self) -> Reply {
        let summaries = self.registry.containers();
        let rows: Vec<Row<'_>> = summaries.iter().map(Row::from).collect();
        dynamic(&rows)
    }

    fn metrics_text(&self) -> Reply {
        let clients = self
            .limits
            .as_ref()
            .map(|limits| limits.limiters.each_ref().map(|limiter| lock(limiter).len()));
        let text = self.metrics.to_text(self.registry.totals(), clients);
        Reply::new(200, metrics::CONTENT_TYPE, text.into_bytes()).with("Cache-Control", "no-store")
    }
}

/// A limiter is whole after each call, whatever panicked elsewhere.
fn lock(limiter: &Mutex<Limiter>) -> MutexGuard<'_, Limiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An element of `/api/v1/containers`.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

impl<'a> From<&'a Summary> for Row<'a> {
    fn from(summary: &'a Summary) -> Self {
        Self {
            id: summary.id.as_str(),
            count: summary.count,
            description: summary.description.as_deref(),
        }
    }
}

/// What is true only now.
fn dynamic(rows: &impl Serialize) -> Reply {
    match serde_json::to_vec(rows) {
        Ok(body) => Reply::json(body).with("Cache-Control", "no-store"),
        Err(error) => {
            log::error!("an answer can't be written as JSON: {error}");
            Reply::error(500, "Internal error")
        }
    }
}

/// The headers of the original, named as in draft-ietf-httpapi-ratelimit-headers-05.
fn with_limit(reply: Reply, limit: NonZeroU32, decision: &Decision) -> Reply {
    reply
        .with("RateLimit-Limit", limit.to_string())
        .with("RateLimit-Remaining", decision.remaining.to_string())
        .with("RateLimit-Reset", decision.reset_seconds().to_string())
}

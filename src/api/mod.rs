//! Routes, query → answer → JSON.
//!
//! [`Service`] decides what is answered and knows no socket; `workers` has the tiny_http pool that asks it.

mod query;
mod readers;
mod status_query;
mod workers;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Serialize;

use crate::client::{Client, forwarded};
use crate::config::Config;
use crate::limiter::{Decision, Limiter, seconds_rounded_up};
use crate::metrics::{self, Endpoint, Label, Metrics, Status, Verdict};
use crate::models::{Models, Step};
use crate::registry::{Purpose, Registry, Summary};
use crate::resources::{Listing, Resources};
use crate::response::Response;
use crate::status::{self, Board, StatusReport};
use readers::Readers;
pub(crate) use workers::spawn;

/// The description of this API, OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

/// Whether the answer may be put off until more is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deferral {
    /// It may; this is the first time that the request is here.
    First,
    /// It may; it was before.
    More,
    /// It was, and may not any more.
    Over,
}

/// What a worker is asked, all of it checked by the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// Path and query, or `*`.
    pub(crate) target: &'a str,
    pub(crate) client: IpAddr,
    /// False where it came through a proxy that is not trusted, or does not name its client.
    pub(crate) is_client_known: bool,
    pub(crate) deferral: Deferral,
}

/// Answers requests; shared by the workers.
#[derive(Debug)]
pub(crate) struct Service {
    registry: Arc<Registry>,
    board: Arc<Board>,
    /// None when nodes are never asked for them; then the endpoint does not exist.
    resources: Option<Resources>,
    models: Arc<Models>,
    /// None when the limit is off.
    limits: Option<Limits>,
    readers: Readers,
    metrics: Arc<Metrics>,
    is_ending: AtomicBool,
}

/// The endpoints with a limit, each with one of its own.
const LIMITED: [Endpoint; 3] = [Endpoint::Ips, Endpoint::Containers, Endpoint::Resources];

#[derive(Debug)]
struct Limits {
    requests_per_minute: NonZeroU32,
    exempt: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    limiters: Vec<(Endpoint, Mutex<Limiter>)>,
}

impl Service {
    pub(crate) fn new(
        config: &Config,
        registry: Arc<Registry>,
        board: Arc<Board>,
        resources: Option<Resources>,
        models: Arc<Models>,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> Self {
        let limits = NonZeroU32::new(config.requests_per_minute).map(|requests_per_minute| Limits {
            requests_per_minute,
            exempt: config.ratelimit_exempt.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            limiters: LIMITED
                .into_iter()
                .filter(|endpoint| *endpoint != Endpoint::Resources || resources.is_some())
                .map(|endpoint| (endpoint, Mutex::new(Limiter::new(requests_per_minute, now))))
                .collect(),
        });
        Self {
            registry,
            board,
            resources,
            models,
            limits,
            readers: Readers::new(config),
            metrics,
            is_ending: AtomicBool::new(false),
        }
    }

    /// From now on health checks are told that the router is about to end, so that balancers send their clients elsewhere.
    pub(crate) fn announce_end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Logs which clients may read `/metrics` and `/status`.
    pub(crate) fn log_readers(&self) {
        self.readers.log();
    }

    /// The answer to one request.
    pub(crate) fn answer(&self, asked: Asked<'_>, now: Instant) -> Response {
        let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
        let endpoint = endpoint_of(path);
        let response = self.route(endpoint, query, asked, now);
        if let Some(status) = Status::of_code(response.status) {
            self.metrics.requests[endpoint][status].add(1);
        }
        response
    }

    fn route(&self, endpoint: Endpoint, query: &str, asked: Asked<'_>, now: Instant) -> Response {
        let is_private = matches!(endpoint, Endpoint::Metrics | Endpoint::Status | Endpoint::StatusJson);
        let is_hidden = is_private && !self.may_look_inside(asked, now)
            || endpoint == Endpoint::Resources && self.resources.is_none();
        if (endpoint == Endpoint::Other && asked.target != "*") || is_hidden {
            return Response::error(404, "Not found");
        }
        let purpose = match asked.method {
            "OPTIONS" => return Response::options(),
            "GET" => Purpose::Route,
            "HEAD" => Purpose::Look,
            _ => return Response::method_not_allowed(),
        };
        let client = Client::from(asked.client);
        match endpoint {
            Endpoint::Ips => self.limited(endpoint, asked, now, |_| self.ips(query, client, purpose, now)),
            Endpoint::Containers => self.limited(endpoint, asked, now, |_| self.containers()),
            Endpoint::Resources => self.limited(endpoint, asked, now, |next| self.resources(query, asked, next, now)),
            Endpoint::Root | Endpoint::Health => self.health(),
            Endpoint::OpenApi => Response::new(200, "application/json", OPENAPI.as_bytes()),
            Endpoint::Metrics => self.metrics_text(),
            Endpoint::Status => self.status(query, now),
            Endpoint::StatusJson => self.status_json(query, now),
            Endpoint::Other => Response::method_not_allowed(),
        }
    }

    /// Whether `METRICS_FROM` names the client. One that is not known may be anybody.
    fn may_look_inside(&self, asked: Asked<'_>, now: Instant) -> bool {
        asked.is_client_known && self.readers.admit(asked.client, now)
    }

    /// What health checks read, and default checks of balancers, which ask for `/`.
    fn health(&self) -> Response {
        match self.is_ending.load(Ordering::Relaxed) {
            false => Response::json(br#"{"status":"healthy"}"#.to_vec()),
            true => Response::new(503, "application/json", &br#"{"status":"ending"}"#[..]),
        }
    }

    /// Answers if the client's limit allows, and tells it how it stands. `answer` is told how long it will be until that
    /// allows the next request.
    fn limited(
        &self,
        endpoint: Endpoint,
        asked: Asked<'_>,
        now: Instant,
        answer: impl FnOnce(Duration) -> Response,
    ) -> Response {
        let Some(limits) = self.limits.as_ref().filter(|limits| !limits.exempts(asked)) else {
            return answer(Duration::ZERO);
        };
        let Some((_, limiter)) = limits.limiters.iter().find(|(limited, _)| *limited == endpoint) else {
            return answer(Duration::ZERO);
        };
        let client = Client::from(asked.client);
        if asked.deferral != Deferral::First {
            let decision = lock(limiter).standing(client, now);
            return with_limit(answer(decision.next_in), limits.requests_per_minute, &decision);
        }
        let decision = lock(limiter).try_take(client, now);
        let (verdict, response) = match decision.retry_after_seconds() {
            None => (Verdict::Granted, answer(decision.next_in)),
            Some(seconds) => (Verdict::Refused, too_many("Too many requests", seconds)),
        };
        self.metrics.limiter[endpoint][verdict].add(1);
        with_limit(response, limits.requests_per_minute, &decision)
    }

    fn ips(&self, query: &str, client: Client, purpose: Purpose, now: Instant) -> Response {
        let query = match query::parse_ips(query) {
            Ok(query) => query,
            Err(error) => return Response::error(400, &error.to_string()),
        };
        let containers = query.containers.iter().map(|id| &**id);
        let nodes = match self.registry.answer(containers, query.page, client, purpose, now) {
            Ok(nodes) => nodes,
            Err(error) => return Response::error(400, &error.to_string()),
        };
        if nodes.is_empty() {
            self.metrics.empty_answers.add(1);
        }
        let addresses: Vec<&str> = nodes.iter().map(|node| node.as_listed()).collect();
        dynamic(&addresses)
    }

    fn containers(&self) -> Response {
        let summaries = self.registry.containers();
        let rows: Vec<Row<'_>> = summaries.iter().map(Row::from).collect();
        dynamic(&rows)
    }

    fn status(&self, query: &str, now: Instant) -> Response {
        match status_query::parse(query) {
            Ok(query) => {
                let html = status::to_html(
                    &self.board,
                    &self.registry,
                    self.resources.as_ref(),
                    &query.filter,
                    query.is_paused,
                    now,
                );
                Response::new(200, status::CONTENT_TYPE, html.into_bytes())
                    .with("Cache-Control", "no-store")
                    .with("Content-Security-Policy", status::CONTENT_SECURITY_POLICY)
            }
            Err(error) => Response::error(400, &error.to_string()),
        }
    }

    fn status_json(&self, query: &str, now: Instant) -> Response {
        match status_query::parse(query) {
            Ok(query) => dynamic(&StatusReport::new(
                &self.board,
                &self.registry,
                self.resources.as_ref(),
                &query.filter,
                now,
            )),
            Err(error) => Response::error(400, &error.to_string()),
        }
    }

    /// The limit allows the client's next request in `next`.
    fn resources(&self, query: &str, asked: Asked<'_>, next: Duration, now: Instant) -> Response {
        let query = match query::parse_resources(query) {
            Ok(query) => query,
            Err(error) => return Response::error(400, &error.to_string()),
        };
        let Some(resources) = &self.resources else {
            return Response::error(404, "Not found");
        };
        let Some(model_id) = query.model_id else {
            let listing = resources.listing(&query.containers, query.page);
            return with_total(listing).with("Cache-Control", "max-age=60");
        };
        let step = match asked.deferral {
            Deferral::First => self.models.request(&model_id, Client::from(asked.client), now),
            Deferral::More if self.models.is_in_progress(&model_id) => Step::Later,
            Deferral::More | Deferral::Over => Step::Ready,
        };
        match step {
            Step::Later => return Response::deferred(),
            Step::Refused(wait) => {
                return too_many("Too many new values of model_id", seconds_rounded_up(wait.max(next)));
            }
            Step::Ready => {}
        }
        let answers = self.models.answers(&model_id, now);
        with_total(resources.support(&answers, &query.containers, query.page)).with("Cache-Control", "no-store")
    }

    fn metrics_text(&self) -> Response {
        let limiters = self.limits.iter().flat_map(|limits| &limits.limiters);
        let clients: Vec<_> = limiters
            .map(|(endpoint, limiter)| (*endpoint, lock(limiter).len()))
            .collect();
        let text = self.metrics.to_text(self.registry.totals(), &clients);
        Response::new(200, metrics::CONTENT_TYPE, text.into_bytes()).with("Cache-Control", "no-store")
    }
}

impl Limits {
    /// Returns whether `RATELIMIT_EXEMPT` contains the client. A trusted proxy is not exempt for a client that it does not
    /// name: a client could otherwise get the proxy's exemption by a forged header.
    fn exempts(&self, asked: Asked<'_>) -> bool {
        let is_in = |blocks: &[IpNet]| forwarded::is_trusted(asked.client, blocks);
        is_in(&self.exempt) && (asked.is_client_known || !is_in(&self.trusted_proxies))
    }
}

fn endpoint_of(path: &str) -> Endpoint {
    let known = Endpoint::ALL.iter().find(|known| known.label() == path);
    known.copied().unwrap_or(Endpoint::Other)
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

/// 429, to be asked again after so many seconds.
fn too_many(what: &str, seconds: u64) -> Response {
    Response::error(429, what).with("Retry-After", seconds.to_string())
}

fn with_total(listing: Listing) -> Response {
    Response::json(listing.body).with("X-Total-Count", listing.total.to_string())
}

/// What is true only now.
fn dynamic(rows: &impl Serialize) -> Response {
    match serde_json::to_vec(rows) {
        Ok(body) => Response::json(body).with("Cache-Control", "no-store"),
        Err(error) => {
            log::error!("an answer can't be written as JSON: {error}");
            Response::error(500, "Internal error")
        }
    }
}

/// The headers of the original, named as in draft-ietf-httpapi-ratelimit-headers-05.
fn with_limit(reply: Response, limit: NonZeroU32, decision: &Decision) -> Response {
    reply
        .with("RateLimit-Limit", limit.to_string())
        .with("RateLimit-Remaining", decision.remaining.to_string())
        .with("RateLimit-Reset", decision.reset_seconds().to_string())
}

//! Routes a request to its endpoint and makes the response.
//!
//! [`Service`] knows no socket; `workers` has the tiny_http pool that calls it.

mod access;
mod listing;
mod openapi;
mod query;
mod workers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Serialize;

use crate::client::Client;
use crate::config::Config;
use crate::gate::Context;
use crate::limiter::{Limiter, seconds_rounded_up};
use crate::metrics::{self, Endpoint, Label};
use crate::models::{Models, Step};
use crate::registry::Purpose;
use crate::response::{Deferral, Response};
use crate::status::{self, Reporter};
use crate::util::log_throttle::{LogThrottle, ONE_AN_HOUR};
use crate::util::threads::lock;
use access::limiters;
use listing::Listing;
use openapi::OPENAPI;
use query::QueryError;
pub(crate) use workers::spawn;

/// Makes the responses; shared by the workers.
pub(crate) struct Service {
    reporter: Reporter,
    /// `None` if resources are never polled; the endpoint does not exist then.
    models: Option<Arc<Models>>,
    config: Config,
    /// One for each rate-limited endpoint.
    limiters: Vec<(Endpoint, Mutex<Limiter>)>,
    /// Lines about clients that may not read `/metrics`: a scraper repeats its request every few seconds.
    refusals: Mutex<LogThrottle>,
    is_ending: AtomicBool,
}

impl Service {
    pub(crate) fn new(config: Config, reporter: Reporter, models: Option<Arc<Models>>, now: Instant) -> Self {
        let readers: Vec<String> = config.metrics_from.iter().map(IpNet::to_string).collect();
        log::info!(from:% = readers.join(","); "metrics readers: these clients may read /metrics and /status");
        Self {
            limiters: limiters(&config, now),
            refusals: Mutex::new(ONE_AN_HOUR),
            config,
            reporter,
            models,
            is_ending: AtomicBool::new(false),
        }
    }

    /// Makes health checks fail from now on, so that load balancers remove the router from rotation.
    pub(crate) fn announce_end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Makes the response to a request that the gate has validated. The target is path and query, or `*`.
    pub(crate) fn answer(&self, method: &str, target: &str, context: &Context, now: Instant) -> Response {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let endpoint = endpoint_of(path);
        let is_missing = match endpoint {
            Endpoint::Metrics | Endpoint::Status | Endpoint::StatusJson => !self.admits(context, now),
            Endpoint::Resources => self.models.is_none(),
            Endpoint::Other => target != "*",
            _ => false,
        };
        let response = match method {
            _ if is_missing => Response::error(404, "Not found"),
            "OPTIONS" => Response::options(),
            "GET" => self.respond(endpoint, query, context, Purpose::Route, now),
            "HEAD" => self.respond(endpoint, query, context, Purpose::Look, now),
            _ => Response::method_not_allowed(),
        };
        self.reporter.metrics.count_request(endpoint, response.status);
        response
    }

    fn respond(&self, endpoint: Endpoint, query: &str, context: &Context, purpose: Purpose, now: Instant) -> Response {
        let decision = self.decide(endpoint, context, now);
        let next_in = decision.map_or(Duration::ZERO, |decision| decision.next_in);
        let response = match endpoint {
            _ if decision.is_some_and(|decision| !decision.is_granted) => Ok(too_many("Too many requests", next_in)),
            Endpoint::Ips => self.ips(query, context, purpose, now),
            Endpoint::Containers => self.containers(query),
            Endpoint::Resources => self.resources(query, context, next_in, now),
            Endpoint::Root | Endpoint::Health => Ok(self.health()),
            Endpoint::OpenApi => Ok(Response::new(200, "application/json", OPENAPI.as_bytes())),
            Endpoint::Metrics => Ok(self.metrics_text()),
            Endpoint::Status => self.status(query, now),
            Endpoint::StatusJson => query::status(query).map(|filter| dynamic(&self.reporter.report(&filter, now))),
            Endpoint::Other => Ok(Response::method_not_allowed()),
        };
        let response = response.unwrap_or_else(|error| Response::error(400, &error.0));
        let Some(decision) = decision else {
            return response;
        };
        // The headers of the original, named as in draft-ietf-httpapi-ratelimit-headers-05.
        response
            .with("RateLimit-Limit", decision.limit.to_string())
            .with("RateLimit-Remaining", decision.remaining.to_string())
            .with("RateLimit-Reset", seconds_rounded_up(decision.full_in).to_string())
    }

    /// The response to health checks, and to the default checks of load balancers, which request `/`.
    fn health(&self) -> Response {
        match self.is_ending.load(Ordering::Relaxed) {
            false => Response::json(br#"{"status":"healthy"}"#.to_vec()),
            true => Response::new(503, "application/json", &br#"{"status":"ending"}"#[..]),
        }
    }

    fn ips(&self, query: &str, context: &Context, purpose: Purpose, now: Instant) -> Result<Response, QueryError> {
        let query = query::ips(query)?;
        let (page, client) = (query.page, Client::from(context.client));
        let containers = query.containers.iter().map(String::as_str);
        let nodes = self.reporter.registry.answer(containers, page, client, purpose, now);
        let nodes = nodes.ok_or_else(|| QueryError::too_deep(&query))?;
        // A client that only looks, or pages past the end, is not left without a node.
        if nodes.is_empty() && purpose == Purpose::Route && page.offset == 0 && page.n > 0 {
            self.reporter.metrics.empty_answers.add(1);
        }
        let addresses: Vec<&str> = nodes.iter().map(|node| node.as_listed()).collect();
        Ok(dynamic(&addresses))
    }

    fn containers(&self, query: &str) -> Result<Response, QueryError> {
        let page = query::containers(query)?;
        let mut listing = Listing::new(b'[', page);
        for summary in &self.reporter.registry.containers() {
            let row = Row {
                id: summary.id.as_str(),
                count: summary.count,
                description: summary.description.as_deref(),
            };
            // Writing to a Vec cannot fail.
            listing.add(|body| drop(serde_json::to_writer(body, &row)));
        }
        Ok(listing.into_response(b']').with("Cache-Control", "no-store"))
    }

    fn status(&self, query: &str, now: Instant) -> Result<Response, QueryError> {
        let filter = query::status(query)?;
        let html = status::to_html(&self.reporter.report(&filter, now), &filter);
        Ok(Response::new(200, status::CONTENT_TYPE, html.into_bytes())
            .with("Cache-Control", "no-store")
            .with("Content-Security-Policy", status::CONTENT_SECURITY_POLICY))
    }

    /// The limit allows the client's next request after `next_in`.
    fn resources(
        &self,
        query: &str,
        context: &Context,
        next_in: Duration,
        now: Instant,
    ) -> Result<Response, QueryError> {
        let query = query::resources(query)?;
        let Some(models) = &self.models else {
            return Ok(Response::error(404, "Not found"));
        };
        let list = |answers| listing::nodes(&self.reporter.registry, &query.containers, query.page, answers);
        let Some(model_id) = query.model_id else {
            return Ok(list(None).with("Cache-Control", "max-age=60"));
        };
        Ok(match survey(models, &model_id, context, now) {
            Step::Later => Response::deferred(),
            Step::Refused(wait) => too_many("Too many new values of model_id", wait.max(next_in)),
            Step::Ready => list(Some(&models.surveys().answers(&model_id, now))).with("Cache-Control", "no-store"),
        })
    }

    fn metrics_text(&self) -> Response {
        let totals = self.reporter.registry.totals();
        let clients = |(endpoint, limiter): &(Endpoint, Mutex<Limiter>)| (*endpoint, lock(limiter).len());
        let clients: Vec<_> = self.limiters.iter().map(clients).collect();
        let text = self.reporter.metrics.to_text(&totals, &clients);
        Response::new(200, metrics::CONTENT_TYPE, text.into_bytes()).with("Cache-Control", "no-store")
    }
}

fn survey(models: &Models, model_id: &str, context: &Context, now: Instant) -> Step {
    match context.deferral {
        Deferral::First => models.request(model_id, Client::from(context.client), now),
        Deferral::More if models.surveys().is_in_progress(model_id) => Step::Later,
        Deferral::More | Deferral::Over => Step::Ready,
    }
}

/// A slash at the end of a path is ignored.
fn endpoint_of(path: &str) -> Endpoint {
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let known = Endpoint::ALL.iter().find(|known| known.label() == path);
    known.copied().unwrap_or(Endpoint::Other)
}

/// An element of `/api/v1/containers`.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

/// 429: the client may retry after this time.
fn too_many(what: &str, wait: Duration) -> Response {
    Response::error(429, what).with("Retry-After", seconds_rounded_up(wait).to_string())
}

/// A response that is valid only now.
fn dynamic(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("its keys are strings");
    Response::json(body).with("Cache-Control", "no-store")
}

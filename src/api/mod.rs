//! Routes a request to its endpoint and makes the response.
//!
//! [`Service`] knows no socket; `workers` has the tiny_http pool that calls it.

mod limits;
mod listing;
mod openapi;
mod query;
mod readers;
mod workers;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::Client;
use crate::config::Config;
use crate::limiter::seconds_rounded_up;
use crate::metrics::{self, Endpoint, Label, Metrics};
use crate::models::{Models, Step};
use crate::registry::{Purpose, Registry, Summary};
use crate::response::{Deferral, Listing, Response};
use crate::status::{self, Reporter};
use limits::Limits;
use query::QueryError;
use readers::Readers;
pub(crate) use workers::spawn;

/// A request that the gate has validated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// Path and query, or `*`.
    pub(crate) target: &'a str,
    pub(crate) client: IpAddr,
    /// False if the request came through a proxy that is not trusted or does not name its client.
    pub(crate) is_client_known: bool,
    pub(crate) deferral: Deferral,
}

/// Makes the responses; shared by the workers.
pub(crate) struct Service {
    registry: Arc<Registry>,
    reporter: Reporter,
    /// `None` if resources are never polled; the endpoint does not exist then.
    models: Option<Arc<Models>>,
    limits: Limits,
    readers: Readers,
    metrics: Arc<Metrics>,
    is_ending: AtomicBool,
}

impl Service {
    pub(crate) fn new(
        config: &Config,
        registry: Arc<Registry>,
        reporter: Reporter,
        models: Option<Arc<Models>>,
        metrics: Arc<Metrics>,
        now: Instant,
    ) -> Self {
        Self {
            limits: Limits::new(config, now),
            readers: Readers::new(config),
            registry,
            reporter,
            models,
            metrics,
            is_ending: AtomicBool::new(false),
        }
    }

    /// Makes health checks fail from now on, so that load balancers remove the router from rotation.
    pub(crate) fn announce_end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Logs which clients may read `/metrics` and `/status`.
    pub(crate) fn log_readers(&self) {
        self.readers.log();
    }

    /// Makes the response to one request.
    pub(crate) fn answer(&self, asked: Asked<'_>, now: Instant) -> Response {
        let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
        let endpoint = endpoint_of(path);
        let response = self.route(endpoint, query, asked, now);
        let response = response.unwrap_or_else(|error| Response::error(400, &error.to_string()));
        self.metrics.count_request(endpoint, response.status);
        response
    }

    fn route(&self, endpoint: Endpoint, query: &str, asked: Asked<'_>, now: Instant) -> Result<Response, QueryError> {
        if (endpoint == Endpoint::Other && asked.target != "*") || self.is_hidden(endpoint, asked, now) {
            return Ok(Response::error(404, "Not found"));
        }
        let purpose = match asked.method {
            "OPTIONS" => return Ok(Response::options()),
            "GET" => Purpose::Route,
            "HEAD" => Purpose::Look,
            _ => return Ok(Response::method_not_allowed()),
        };
        Ok(match endpoint {
            Endpoint::Ips => self.limited(endpoint, asked, now, |_| self.ips(query, asked, purpose, now)),
            Endpoint::Containers => self.limited(endpoint, asked, now, |_| self.containers(query)),
            Endpoint::Resources => self.limited(endpoint, asked, now, |next_in| {
                self.resources(query, asked, next_in, now)
            }),
            Endpoint::Root | Endpoint::Health => self.health(),
            Endpoint::OpenApi => Response::new(200, "application/json", &openapi::OPENAPI[..]),
            Endpoint::Metrics => self.metrics_text(),
            Endpoint::Status => return self.status(query, now),
            Endpoint::StatusJson => return self.status_json(query, now),
            Endpoint::Other => Response::method_not_allowed(),
        })
    }

    /// Returns whether the endpoint does not exist for this client.
    fn is_hidden(&self, endpoint: Endpoint, asked: Asked<'_>, now: Instant) -> bool {
        match endpoint {
            Endpoint::Metrics | Endpoint::Status | Endpoint::StatusJson => {
                !asked.is_client_known || !self.readers.admit(asked.client, now)
            }
            Endpoint::Resources => self.models.is_none(),
            _ => false,
        }
    }

    /// The response to health checks, and to the default checks of load balancers, which request `/`.
    fn health(&self) -> Response {
        match self.is_ending.load(Ordering::Relaxed) {
            false => Response::json(br#"{"status":"healthy"}"#.to_vec()),
            true => Response::new(503, "application/json", &br#"{"status":"ending"}"#[..]),
        }
    }

    /// Calls `respond` if the client's limit allows it, with the time until the limit allows the next request.
    fn limited(
        &self,
        endpoint: Endpoint,
        asked: Asked<'_>,
        now: Instant,
        respond: impl FnOnce(Duration) -> Result<Response, QueryError>,
    ) -> Response {
        let respond = |next_in| respond(next_in).unwrap_or_else(|error| Response::error(400, &error.to_string()));
        let Some(decision) = self.limits.decide(endpoint, asked, &self.metrics, now) else {
            return respond(Duration::ZERO);
        };
        let response = match decision.retry_after_seconds() {
            None => respond(decision.next_in),
            Some(seconds) => too_many("Too many requests", seconds),
        };
        // The headers of the original, named as in draft-ietf-httpapi-ratelimit-headers-05.
        response
            .with("RateLimit-Limit", decision.limit.to_string())
            .with("RateLimit-Remaining", decision.remaining.to_string())
            .with("RateLimit-Reset", decision.reset_seconds().to_string())
    }

    fn ips(&self, query: &str, asked: Asked<'_>, purpose: Purpose, now: Instant) -> Result<Response, QueryError> {
        let query = query::ips(query)?;
        let (page, client) = (query.page, Client::from(asked.client));
        let containers = query.containers.iter().map(String::as_str);
        let nodes = self.registry.answer(containers, page, client, purpose, now)?;
        // A client that only looks, or pages past the end, is not left without a node.
        if nodes.is_empty() && purpose == Purpose::Route && page.offset == 0 && page.n > 0 {
            self.metrics.empty_answers.add(1);
        }
        let addresses: Vec<&str> = nodes.iter().map(|node| node.as_listed()).collect();
        Ok(dynamic(&addresses))
    }

    fn containers(&self, query: &str) -> Result<Response, QueryError> {
        let page = query::containers(query)?;
        let summaries = self.registry.containers();
        let listing = Listing::new(*b"[]", summaries.iter(), page, |body, summary| {
            // Writing to a Vec cannot fail.
            let _ = serde_json::to_writer(body, &Row::from(summary));
        });
        Ok(listing.into_response().with("Cache-Control", "no-store"))
    }

    fn status(&self, query: &str, now: Instant) -> Result<Response, QueryError> {
        let filter = query::status(query)?;
        let html = status::to_html(&self.reporter.report(&filter, now), &filter);
        Ok(Response::new(200, status::CONTENT_TYPE, html.into_bytes())
            .with("Cache-Control", "no-store")
            .with("Content-Security-Policy", status::CONTENT_SECURITY_POLICY))
    }

    fn status_json(&self, query: &str, now: Instant) -> Result<Response, QueryError> {
        Ok(dynamic(&self.reporter.report(&query::status(query)?, now)))
    }

    /// The limit allows the client's next request after `next_in`.
    fn resources(
        &self,
        query: &str,
        asked: Asked<'_>,
        next_in: Duration,
        now: Instant,
    ) -> Result<Response, QueryError> {
        let query = query::resources(query)?;
        let Some(models) = &self.models else {
            return Ok(Response::error(404, "Not found"));
        };
        let Some(model_id) = query.model_id else {
            let listing = listing::resources(&self.registry, &query.containers, query.page);
            return Ok(listing.into_response().with("Cache-Control", "max-age=60"));
        };
        Ok(match survey(models, &model_id, asked, now) {
            Step::Later => Response::deferred(),
            Step::Refused(wait) => {
                let seconds = seconds_rounded_up(wait.max(next_in));
                too_many("Too many new values of model_id", seconds)
            }
            Step::Ready => {
                let answers = models.answers(&model_id, now);
                let listing = listing::support(&self.registry, &answers, &query.containers, query.page);
                listing.into_response().with("Cache-Control", "no-store")
            }
        })
    }

    fn metrics_text(&self) -> Response {
        let text = self.metrics.to_text(&self.registry.totals(), &self.limits.clients());
        Response::new(200, metrics::CONTENT_TYPE, text.into_bytes()).with("Cache-Control", "no-store")
    }
}

fn survey(models: &Models, model_id: &str, asked: Asked<'_>, now: Instant) -> Step {
    match asked.deferral {
        Deferral::First => models.request(model_id, Client::from(asked.client), now),
        Deferral::More if models.is_in_progress(model_id) => Step::Later,
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

impl<'a> From<&'a Summary> for Row<'a> {
    fn from(summary: &'a Summary) -> Self {
        Self {
            id: summary.id.as_str(),
            count: summary.count,
            description: summary.description.as_deref(),
        }
    }
}

/// 429: the client may retry after this many seconds.
fn too_many(what: &str, seconds: u64) -> Response {
    Response::error(429, what).with("Retry-After", seconds.to_string())
}

/// A response that is valid only now.
fn dynamic(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response::json(body).with("Cache-Control", "no-store"),
        Err(error) => {
            log::error!(reason:% = error; "response lost: its value has no JSON form");
            Response::error(500, "Internal error")
        }
    }
}

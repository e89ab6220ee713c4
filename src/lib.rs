//! The Infernet Router: tells clients of an Infernet fleet which nodes to call, earliest expected completion first.
//!
//! `.packaging/docs/design.md` has a diagram of these flows.
//!
//! **A request.** client → `gate` (connection limit: `clients::eviction`, else 503; header section late: 408; too long:
//! 414, 431; body with data: 413; malformed: 400; HTTP/2: 505) → `clients::fair_queue`, where clients take turns for
//! tickets → method, path, query and ticket over a private, already open connection → tiny_http → worker, which finds
//! the rest of the request under the ticket: route (404, 405)
//! → `api::access` (exempt clients pass, `limiter` decides for all others: 429) → query (400) → `registry`: select,
//! promise → JSON → the response and its ticket on a bounded queue, and an eventfd → `gate::clients` writes the
//! response without blocking, under the deadline of `gate::connection`. `gate::worker_pool` notices a worker that is
//! stuck for 5 s, and `gate::event_loop` replaces the pool: all its requests in flight get 502.
//!
//! **A list.** `lists` reads `ips.txt` (lines: `node::list`) when it has changed and settled (`util::watched_file`),
//! and polls the Node Explorer. Entries of the Explorer are IP addresses, and `node::network_scope` refuses private
//! ones. Each accepted list → bounded channel → `poller` merges the lists (`lists::merge`), adds and removes nodes.
//! `util::polled` keeps the last good list.
//!
//! **A probe.** `poller::schedule` selects the due node, spread evenly over the interval: available nodes first, but
//! every fourth turn for others; a node that failed is due again after 1 s → bounded channel → a `probe` thread: one
//! `GET /info` under one deadline (`net`; `net::reason` words a failure) → bounded channel → `poller`: `observe` gives
//! the new health, `mass_failure` judges whether the cause is local → the node's record in `registry` → log.
//!
//! **A promise.** A response that names a node first adds one expected job to that node (`registry::promises`,
//! `registry::speed`), so the next client gets another node. A report of a probe that was sent later replaces the
//! promise. `registry::speed` caps how far one subnet moves the order of all clients (`MIN_CAP`, `MAX_CAP`).
//!
//! **Resources.** `poller` selects an available node whose resources are due → a separate pool: one `GET /resources`
//! under one deadline → the node's entries in `registry` → `/api/v1/resources`.
//!
//! **A survey.** A request with a `model_id` starts a survey in `models`, or joins one (`models::new_ids` refuses
//! above the budget, `api` responds 429) → `poller` sends its queries to the nodes through the same pool → `models`
//! stores the responses. Meanwhile the worker defers the request, and the gate repeats it, so that no other request
//! waits.
//!
//! **The status.** `status` reads the records of `registry` in slices, and the last state of the lists → `/status`,
//! `/status.json` and the command `status`, which has the same types.
//!
//! **To add a setting**: `config::table`, then `Config` and `read_all` (`config/mod.rs`) in the order of the table; its
//! parser belongs to `config::values`. Tests name the documents that must show it. **To add a metric**:
//! `metrics/families.txt` and `metrics::text`, and a field of `Metrics` for a counter.
//!
//! **Invariants**
//! - `config`, `node`, `limiter`, `registry`, `models`, `gate::head` and `gate::connection` open no socket, start no
//!   thread and read no clock (`gate::connection` only for the `Date` of a refusal).
//! - A node has one place, the same in the order of each container that it runs. Only `registry::state` changes it,
//!   and moves the node in all these orders: a stale place is never removed.
//! - Only the poller writes what nodes are. Only a response adds a promise. The registry's lock is held for
//!   microseconds (a report of a node with 256 containers takes some hundred), never across I/O, a log line or a sort
//!   of all nodes.
//! - The first page of `/ips` for one container costs the same with 10 nodes as with 100,000, unless the client's
//!   subnet is above its cap: the private order then reads up to 256 keys. A later page costs a walk over the nodes
//!   before it. Containers that rarely meet cost a walk over the nodes of the rarest, outside the lock, repeated at
//!   most four times while other responses change the order.
//! - A client connection has at most one request in flight, by construction: its stages are private, carry their data,
//!   and change in one pure function. The epoll interest is computed from the stage in one place.
//! - When a vital thread (gate, poller, lists, the watcher of `SSL_CERT_FILE`) exits, the process exits.
//! - Nothing that blocks (the log, a list on a network disk, a resolver, the start of workers) runs on the event loop
//!   or the poller. The exit waits for the log for half a second.
//! - The gate and its workers have their threads before the first probe is sent. Idle probe threads exit, all but one.
//! - No queue, pool, table or buffer without a named limit.
//! - Untrusted text is never logged or returned unescaped or at unbounded length.
//! - No thread outlives [`Router`], except what cannot be interrupted: lookups of host names, a read on a hung disk,
//!   stuck workers, and tiny_http's own threads, which exit within 5 s. The log and the signals have threads of the
//!   process. A panic in a request returns 500, and a panic in a probe is a failed probe.
//! - Only `api::workers` uses tiny_http, which sees no byte that a client chose, except method, path and query that the
//!   gate has validated.

#[cfg(not(target_os = "linux"))]
compile_error!("the gate needs epoll and abstract sockets: build for Linux, or run the container image");

mod api;
pub mod client;
pub mod commands;
pub mod config;
mod gate;
mod limiter;
mod lists;
mod metrics;
mod models;
mod net;
pub mod node;
mod poller;
pub mod registry;
mod response;
mod status;
mod util;

pub use util::text::closest;
pub use util::{glibc, logger};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use api::Service;
use config::Config;
use gate::Serving;
use lists::Lists;
use metrics::Metrics;
use models::Models;
use net::Fetcher;
use registry::{PromisePolicy, Registry};
use status::Reporter;
use util::limits;
use util::threads::{self, Joined};

/// The maximum time to wait for results of all nodes before serving.
/// Clients time out after 3 s, some earlier: a client that connects during the start still gets a response.
const STARTUP_GRACE: Duration = Duration::from_millis(1_500);
/// A shutdown takes at most this long after `SHUTDOWN_DELAY`: supervisors kill after 10 s by default.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that the router needs: seven of the workers, gate, poller, three of the lists, two of `SSL_CERT_FILE`, a
/// resource poll, a probe and a lookup. The rest is spare, because tiny_http starts its threads later and panics if that
/// fails.
const START_THREADS: usize = 20;
/// List updates that the poller has not received yet. Lists that arrive faster than the poller applies them wait at
/// their source, so that the poller never applies outdated lists.
const MAX_UPDATES: usize = 1;

/// A running router. Dropping it responds to requests in flight, aborts probes and joins the threads.
pub struct Router {
    /// Dropped first, it stops all threads but the gate: the poller then aborts the requests to nodes and lists.
    _stop: Sender<()>,
    /// A connect cannot be interrupted and takes up to 3 s, as the clients may. Both must run concurrently to finish
    /// within 5 s.
    _serving: Serving,
    service: Arc<Service>,
    /// The bound address.
    pub addr: SocketAddr,
    /// Receives the name of a vital thread that has exited, which is a defect. The process must then exit, so that the
    /// supervisor restarts it.
    pub broken: Receiver<String>,
    /// The watchers of the list and of `SSL_CERT_FILE`.
    reread: Vec<Sender<()>>,
    threads: Vec<Joined>,
}

impl Router {
    /// Binds the port, allocates all that serving needs, and starts to probe. Clients wait in the backlog until every
    /// node has responded or failed, at most for 1.5 s.
    ///
    /// # Errors
    /// The port is in use, or the system lacks a resource.
    #[expect(clippy::disallowed_methods, reason = "where its clocks begin")]
    pub fn start(mut config: Config) -> io::Result<Self> {
        let now = Instant::now();
        let fetcher = Fetcher::of_config(&config);
        let bind = SocketAddr::new(config.host, config.port);
        let unbound = |error| io::Error::other(format!("can't serve on {bind} (HOST and PORT): {error}"));
        let listener = gate::bind(bind).map_err(unbound)?;
        let addr = listener.local_addr()?;
        threads::check_room(START_THREADS)?;
        (config.max_connections, config.max_probes) = limits::fit(config.max_connections, config.max_probes);
        let metrics = Arc::new(Metrics::default());
        let registry = Arc::new(Registry::new(policy(&config), config.refresh_interval, now));
        let lists = Lists::new(&config);
        let (alarm, broken) = bounded(1);
        // `stop` is declared last and dropped first: if the start fails, the threads stop before the joins.
        let threads;
        let (stop, stopped) = bounded(0);

        let models = |_| Arc::new(Models::new(Arc::clone(&metrics)));
        let models = config.resources_interval.map(models);
        let reporter = Reporter {
            registry: Arc::clone(&registry),
            lists: lists.clone(),
            resolver: fetcher.resolver().clone(),
            metrics: Arc::clone(&metrics),
            started: now,
            interval: config.refresh_interval,
            settings: config.changed.clone(),
        };
        let service = Arc::new(Service::new(config.clone(), reporter, models.clone(), now));
        let (updates, received) = bounded(MAX_UPDATES);
        let outputs = poller::Outputs {
            registry: Arc::clone(&registry),
            metrics: Arc::clone(&metrics),
            fetcher: fetcher.clone(),
            models,
        };
        let (poller, ready) = poller::start(config.clone(), outputs, received, stopped.clone(), &alarm)?;
        threads = vec![poller];

        let to_serve = Arc::clone(&service);
        let spawn: gate::Spawn = Arc::new(move || api::spawn(&to_serve));
        let may_begin = may_serve(addr, ready, stopped.clone());
        let serving = gate::prepare(listener, config.clone(), spawn, Arc::clone(&metrics), may_begin, &alarm)?;

        let mut router = Self {
            _stop: stop,
            _serving: serving,
            service,
            addr,
            broken,
            reread: Vec::new(),
            threads,
        };
        let outputs = lists::Outputs { updates, metrics };
        if let (Some(url), Some(polled)) = (&config.api_url, &lists.explorer) {
            let source = (url.clone(), Arc::clone(polled));
            let (interval, stop) = (config.refresh_interval, stopped.clone());
            let follow = lists::follow(source, fetcher.clone(), interval, outputs.clone(), stop, &alarm);
            router.threads.push(follow?);
        }
        // Last: probes begin with the first list, and must not take threads that the rest still needs.
        let (reread, rereads) = bounded(1);
        router.reread.push(reread);
        if let Some(path) = &config.ssl_cert_file {
            let (reread, rereads) = bounded(1);
            router.reread.push(reread);
            let watch = fetcher.watch_roots(path, [rereads, stopped.clone()], &alarm);
            router.threads.push(watch?);
        }
        let watch = lists::watch(&config, &lists, outputs, [rereads, stopped], &alarm);
        router.threads.push(watch?);
        Ok(router)
    }

    /// Reads the list of nodes and `SSL_CERT_FILE` again now, changed or not.
    pub fn reread_list(&self) {
        // If the channel is full, a reload is due already.
        for watcher in &self.reread {
            let _ = watcher.try_send(());
        }
    }

    /// Makes `/health` and `/` return 503, so that balancers send their clients elsewhere. All else continues.
    pub fn announce_end(&self) {
        self.service.announce_end();
    }
}

/// Waits until every node has responded or failed, at most for the grace. Returns false if the router stops before.
fn may_serve(addr: SocketAddr, ready: Receiver<()>, stopped: Receiver<()>) -> impl FnOnce() -> bool {
    move || {
        select_biased! {
            recv(stopped) -> _ => return false,
            recv(ready) -> _ => {}
            default(STARTUP_GRACE) => {}
        }
        let url = format!("http://{addr}");
        log::info!(url:% = url; "serving: accepting requests");
        true
    }
}

fn policy(config: &Config) -> PromisePolicy {
    match config.promises {
        true => PromisePolicy::On {
            weight: config.weights.weight("offchain"),
            max_speedup: config.max_speedup,
        },
        false => PromisePolicy::Off,
    }
}

//! What the fleet can run: what nodes say of their containers (`GET /resources`), asked now and then, and which of them
//! support a model, asked when clients want to know.
//!
//! Each question loads a node's containers, so no client's request is passed on: what all nodes said lately is here already, and
//! one survey is shared by all who ask for a model. It never changes whether a node is available, and the threads that ask
//! are its own. One thread decides whom to ask when (`nodes`, pure, and `models`); readers take a `view`, without waiting.

mod fetching;
mod nodes;
mod view;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select_biased};

use crate::metrics::{Metrics, ResourcesOutcome};
use crate::models::{self, Answer, Models};
use crate::net::Fetcher;
use crate::node::{Entries, NodeAddr};
use crate::registry::{Page, Registry};
use crate::response::Listing;
use crate::util::log_throttle::{LogThrottle, ONE_A_MINUTE};
use crate::util::threads::{self, Joined};
use fetching::{Failure, FetchJob, FetchPool, FetchReport, FetchTarget};
use nodes::{MAX_POLLS, Nodes, Turn};
use view::View;

/// Which nodes are available is looked up this often, and this much later for each node: at 10,000 it takes some
/// milliseconds, and that no more than once a second.
const SYNC_INTERVAL: Duration = Duration::from_millis(250);
const SYNC_INTERVAL_OF_NODE: Duration = Duration::from_micros(75);

/// What is known, for those who answer. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Resources {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    nodes: Mutex<Nodes>,
    view: Mutex<Arc<View>>,
    metrics: Arc<Metrics>,
}

/// Each change of what a lock guards is complete or not begun, whatever panicked elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that asks nodes for their resources every `interval`; it ends when `stop` closes.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    interval: Duration,
    fetcher: Fetcher,
    registry: Arc<Registry>,
    models: Arc<Models>,
    stop: Receiver<()>,
    metrics: Arc<Metrics>,
    now: Instant,
) -> io::Result<(Joined, Resources)> {
    let shared = Arc::new(Shared {
        nodes: Mutex::new(Nodes::new(interval, now)),
        view: Mutex::default(),
        metrics,
    });
    let (pool, reports) = FetchPool::new(fetcher, MAX_POLLS + models::MAX_IN_FLIGHT);
    let mut collector = Collector {
        registry,
        models,
        pool,
        shared: Arc::clone(&shared),
        under_way: 0,
        next_sync: now,
        has_warned_of_room: false,
        local: LogThrottle::new(ONE_A_MINUTE),
    };
    let thread = threads::spawn("resources", move || {
        #[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
        let clock = Instant::now;
        loop {
            let wait = collector.act(clock());
            select_biased! {
                recv(stop) -> _ => return,
                recv(reports) -> report => match report {
                    Ok(report) => collector.report(report, clock()),
                    Err(_) => return,
                },
                recv(collector.models.woken()) -> _ => {}
                default(wait.saturating_duration_since(clock())) => {}
            }
        }
    })?;
    Ok((thread, Resources { shared }))
}

impl Resources {
    /// A page of what available nodes that run all of `containers` can run.
    pub(crate) fn listing(&self, containers: &[String], page: Page) -> Listing {
        self.view().resources(containers, page)
    }

    /// A page of what nodes answered for a model.
    pub(crate) fn support(&self, answers: &[(NodeAddr, Arc<Entries>)], containers: &[String], page: Page) -> Listing {
        let answers = answers.iter().map(|(addr, entries)| (addr, &**entries));
        self.view().support(answers, containers, page)
    }

    /// How these nodes stand with their resources, in words; none of one that is not available. Foreign text in them is
    /// escaped and cut.
    pub(crate) fn states<'a>(&self, addrs: impl Iterator<Item = &'a NodeAddr>) -> Vec<Option<String>> {
        let nodes = lock(&self.shared.nodes);
        addrs.map(|addr| nodes.state(addr)).collect()
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&lock(&self.shared.view))
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Collector {
    registry: Arc<Registry>,
    models: Arc<Models>,
    pool: FetchPool,
    shared: Arc<Shared>,
    under_way: usize,
    next_sync: Instant,
    has_warned_of_room: bool,
    local: LogThrottle,
}

impl Collector {
    /// Does all that is due and returns when there is more to do.
    fn act(&mut self, now: Instant) -> Instant {
        if self.next_sync <= now {
            self.sync(now);
        }
        let next = self.next_sync.min(self.poll(now)).min(self.survey(now));
        if let Err(error) = self.pool.grow(self.under_way) {
            self.complain(&error.to_string(), now);
        }
        next
    }

    /// Learns which nodes are available and shows what is known of them.
    fn sync(&mut self, now: Instant) {
        let available = self.registry.available();
        let mut nodes = lock(&self.shared.nodes);
        nodes.sync(available, now);
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        self.next_sync = now + SYNC_INTERVAL + SYNC_INTERVAL_OF_NODE * count;
        let view = nodes.changed_view();
        let has_shed = nodes.has_shed();
        drop(nodes);
        if let Some(view) = view {
            *lock(&self.shared.view) = Arc::new(view);
        }
        if has_shed && !std::mem::replace(&mut self.has_warned_of_room, true) {
            log::warn!("what nodes say of their resources is too much to keep: those that come last are left out");
        }
    }

    fn poll(&mut self, now: Instant) -> Instant {
        loop {
            let turn = lock(&self.shared.nodes).turn(now);
            match turn {
                Turn::Poll(addr) => self.send(&addr, FetchTarget::Resources),
                Turn::Wait(until) => return until,
            }
        }
    }

    fn survey(&mut self, now: Instant) -> Instant {
        let models = Arc::clone(&self.models);
        let nodes = lock(&self.shared.nodes);
        models.plan(|| nodes.candidates(), now);
        drop(nodes);
        loop {
            let next = models.next(|addr| lock(&self.shared.nodes).is_free(addr), now);
            match next {
                Ok(query) => {
                    lock(&self.shared.nodes).begin_query(&query.addr);
                    self.send(&query.addr.clone(), FetchTarget::Support(query));
                }
                Err(until) => return until.unwrap_or(self.next_sync),
            }
        }
    }

    fn send(&mut self, addr: &NodeAddr, question: FetchTarget) {
        let facts = lock(&self.shared.nodes).facts(addr);
        if let Some((rank, runs)) = facts {
            self.under_way += 1;
            let source = rank.source();
            // The pool has room: no more are under way than it was made for.
            self.pool.send(FetchJob {
                addr: addr.clone(),
                source,
                runs,
                question,
            });
        }
    }

    fn report(&mut self, report: FetchReport, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        self.tell(&report, now);
        match report.question {
            FetchTarget::Resources => lock(&self.shared.nodes).polled(&report.addr, report.answer, now),
            FetchTarget::Support(query) => {
                lock(&self.shared.nodes).end_query(&report.addr);
                let answer = match report.answer {
                    Ok(reading) => Answer::Entries(reading.entries),
                    Err(Failure::Local(_)) => Answer::Local,
                    Err(_) => Answer::Failed,
                };
                self.models.answered(&query, report.source, answer, now);
            }
        }
    }

    fn tell(&mut self, report: &FetchReport, now: Instant) {
        let outcome = match &report.answer {
            Ok(_) => ResourcesOutcome::Ok,
            Err(Failure::NotFound) => ResourcesOutcome::NotFound,
            Err(Failure::Failed(_)) => ResourcesOutcome::Failed,
            Err(Failure::Local(_)) => ResourcesOutcome::Local,
        };
        self.shared.metrics.resources_requests[outcome].add(1);
        let what = match &report.question {
            FetchTarget::Resources => "resources".to_owned(),
            FetchTarget::Support(query) => format!("support of {:?}", query.id),
        };
        let addr = report.addr.as_listed();
        match &report.answer {
            Ok(reading) => {
                let count = reading.entries.len();
                let left_out = reading.left_out.as_ref().map(|reason| format!("; left out {reason}"));
                log::debug!("{what} of {addr:?}: {count} containers{}", left_out.unwrap_or_default());
            }
            Err(Failure::NotFound) => log::debug!("{what} of {addr:?}: answered 404"),
            Err(Failure::Failed(reason)) => log::debug!("{what} of {addr:?}: {reason}"),
            Err(Failure::Local(reason)) => self.complain(reason, now),
        }
    }

    fn complain(&mut self, reason: &str, now: Instant) {
        if let Some(suppressed) = self.local.admit(now) {
            log::error!("nodes can't be asked for their resources, for a lack on this machine: {reason}{suppressed}");
        }
    }
}

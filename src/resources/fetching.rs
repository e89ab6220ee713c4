//! The threads that ask nodes for their resources: a pool of its own, so that none of this takes a turn from a probe.
//! Neither logs nor decides whom to ask.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::models::Query;
use crate::net::{Bounds, Fetcher, MAX_REDIRECTS, NODE_TIMEOUT};
use crate::node::{ContainerId, NodeAddr, Reading, Source, parse_resources, parse_support};
use crate::util::threads::{self, Joined};

/// Longest body read. Three services of a real node have some 30 KiB.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// A thread that had nothing to do for this long ends: most of the time there is work for one or two.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// What a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FetchTarget {
    /// What its containers can run.
    Resources,
    /// Which of them support this model.
    Support(Query),
}

/// One node to ask.
#[derive(Debug)]
pub(super) struct FetchJob {
    pub(super) addr: NodeAddr,
    pub(super) source: Source,
    /// The containers that it runs, sorted.
    pub(super) runs: Arc<[ContainerId]>,
    pub(super) question: FetchTarget,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// 404: it is older than 1.4.0.
    NotFound,
    /// In a few words.
    Failed(String),
    /// It went wrong on this machine (descriptors, memory, ports), which says nothing of the node.
    Local(String),
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct FetchReport {
    pub(super) addr: NodeAddr,
    pub(super) source: Source,
    pub(super) question: FetchTarget,
    pub(super) answer: Result<Reading, Failure>,
}

/// As many threads as were needed lately.
#[derive(Debug)]
pub(super) struct FetchPool {
    fetcher: Fetcher,
    /// Field order is drop order: the channel must close before the joins, or they never end.
    jobs: Sender<FetchJob>,
    queue: Receiver<FetchJob>,
    reports: Sender<FetchReport>,
    threads: Vec<Joined>,
}

impl FetchPool {
    /// A pool for at most `max_jobs` at once, of which the owner keeps count. Both channels have room for all of them,
    /// so neither the pool nor its owner ever waits to send.
    pub(super) fn new(fetcher: Fetcher, max_jobs: usize) -> (Self, Receiver<FetchReport>) {
        let (jobs, queue) = bounded(max_jobs);
        let (reports, inbox) = bounded(max_jobs);
        let pool = Self {
            fetcher,
            jobs,
            queue,
            reports,
            threads: Vec::new(),
        };
        (pool, inbox)
    }

    /// Sees to it that there is a thread for each of `jobs` under way; with fewer they take longer.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub(super) fn grow(&mut self, jobs: usize) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        while self.threads.len() < jobs {
            let (queue, reports, fetcher) = (self.queue.clone(), self.reports.clone(), self.fetcher.clone());
            self.threads
                .push(threads::spawn("resources", move || run(&queue, &reports, &fetcher))?);
        }
        Ok(())
    }

    /// Hands a job over; false when there is no room for it.
    pub(super) fn send(&self, job: FetchJob) -> bool {
        self.jobs.try_send(job).is_ok()
    }
}

impl Drop for FetchPool {
    fn drop(&mut self) {
        // Both ends of the channel are here: drain it, then close it, and the threads end after what they are at.
        while self.queue.try_recv().is_ok() {}
        let (closed, _) = bounded(0);
        self.jobs = closed;
        self.threads.clear();
    }
}

fn run(queue: &Receiver<FetchJob>, reports: &Sender<FetchReport>, fetcher: &Fetcher) {
    loop {
        let job = match queue.recv_timeout(MAX_IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        let answer = catch_unwind(AssertUnwindSafe(|| ask(fetcher, &job)))
            .unwrap_or_else(|_| Err(Failure::Failed("reading the answer panicked".to_owned())));
        let report = FetchReport {
            addr: job.addr,
            source: job.source,
            question: job.question,
            answer,
        };
        if reports.send(report).is_err() {
            return;
        }
    }
}

/// Asks one node, bounded as a probe is.
fn ask(fetcher: &Fetcher, job: &FetchJob) -> Result<Reading, Failure> {
    let bounds = Bounds {
        timeout: NODE_TIMEOUT,
        max_body_bytes: MAX_BODY_BYTES,
        max_redirects: match job.source {
            Source::IpsFile => MAX_REDIRECTS,
            Source::Explorer => 0,
        },
    };
    let url = match &job.question {
        FetchTarget::Resources => job.addr.resources_url(),
        FetchTarget::Support(query) => job.addr.support_url(&query.id),
    };
    let answer = fetcher.get(&url, bounds).map_err(|error| match error.is_local() {
        true => Failure::Local(error.to_string()),
        false => Failure::Failed(error.to_string()),
    })?;
    if answer.status == 404 {
        return Err(Failure::NotFound);
    }
    let body = answer.into_body().map_err(|error| Failure::Failed(error.to_string()))?;
    match job.question {
        FetchTarget::Resources => parse_resources(&body, &job.runs),
        FetchTarget::Support(_) => parse_support(&body, &job.runs),
    }
    .map_err(|error| Failure::Failed(error.to_string()))
}

//! Asks one node how it is: a single `GET /info`, bounded in time and size, on a pool of threads.
//! Neither logs nor decides who is "up": the poller does.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::fetch::{Answer, Bounds, Fetcher, MAX_REDIRECTS, NODE_TIMEOUT};
use crate::node::{NodeAddr, NodeInfo, Source};
use crate::registry::NodeId;
use crate::util::threads::{self, Joined};

/// Longest `/info` body read. Real ones are a few KiB; 128 probes stay below 32 MiB.
pub(crate) const MAX_INFO_BYTES: u64 = 256 * 1024;
/// How a probe ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The node answered as a node does.
    Up(NodeInfo),
    /// 429: it is alive and asks us less often. Neither a success nor a failure.
    Limited,
    /// A failure, with the reason in a few words.
    Failed(String),
    /// It went wrong on our side (descriptors, memory, ports): no verdict.
    LocalError(String),
}

/// Asks one node. Takes no longer than [`NODE_TIMEOUT`]. Beside the outcome: where redirects led, if there were any.
pub(crate) fn probe(fetcher: &Fetcher, addr: &NodeAddr, source: Source) -> (Outcome, Option<String>) {
    let bounds = Bounds {
        timeout: NODE_TIMEOUT,
        max_body_bytes: MAX_INFO_BYTES,
        max_redirects: match source {
            Source::IpsFile => MAX_REDIRECTS,
            Source::Explorer => 0,
        },
    };
    match fetcher.get(&addr.info_url(), bounds) {
        Ok(mut answer) => {
            let redirected_to = answer.redirected_to.take();
            let outcome = match (outcome(answer), &redirected_to) {
                (Outcome::Failed(reason), Some(to)) => {
                    Outcome::Failed(format!("{reason}, behind a redirect to \"{to}\""))
                }
                (outcome, _) => outcome,
            };
            (outcome, redirected_to)
        }
        Err(error) if error.is_local() => (Outcome::LocalError(error.to_string()), None),
        Err(error) => (Outcome::Failed(error.to_string()), None),
    }
}

fn outcome(answer: Answer) -> Outcome {
    if answer.status == 429 {
        return Outcome::Limited;
    }
    let info = answer
        .into_body()
        .and_then(|body| NodeInfo::parse(&body).map_err(|error| error.to_string()));
    info.map_or_else(Outcome::Failed, Outcome::Up)
}

/// One node to ask.
#[derive(Debug)]
pub(crate) struct ProbeJob {
    pub(crate) id: NodeId,
    /// The registry's number of this probe.
    pub(crate) probe: u32,
    pub(crate) addr: NodeAddr,
    pub(crate) source: Source,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct ProbeReport {
    pub(crate) id: NodeId,
    pub(crate) probe: u32,
    pub(crate) outcome: Outcome,
    /// Where redirects led, if there were any; fit for the log.
    pub(crate) redirected_to: Option<String>,
    pub(crate) took: Duration,
}

/// The threads that ask, as many as were needed at once lately.
#[derive(Debug)]
pub(crate) struct ProbePool {
    fetcher: Fetcher,
    /// Field order is drop order: the channel must close before the joins, or they never end.
    jobs: Sender<Task>,
    queue: Receiver<Task>,
    reports: Sender<ProbeReport>,
    threads: Vec<Joined>,
    /// How many of the threads have been told to end and have not ended yet.
    ending: usize,
}

/// What a thread is told.
#[derive(Debug)]
enum Task {
    Ask(ProbeJob),
    End,
}

impl ProbePool {
    /// A pool for at most `max_probes` jobs under way at once. Both channels have room for all of them, so neither
    /// the pool nor its owner ever waits to send.
    pub(crate) fn new(fetcher: Fetcher, max_probes: usize) -> (Self, Receiver<ProbeReport>) {
        let (jobs, queue) = bounded(max_probes);
        let (reports, inbox) = bounded(max_probes);
        let pool = Self {
            fetcher,
            jobs,
            queue,
            reports,
            threads: Vec::new(),
            ending: 0,
        };
        (pool, inbox)
    }

    /// How many threads there are, without those that are about to end.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len().saturating_sub(self.ending)
    }

    /// Starts threads until there are this many.
    ///
    /// # Errors
    /// When there can be no more; those that there are go on.
    pub(crate) fn grow(&mut self, threads: usize) -> io::Result<()> {
        self.forget_ended();
        while self.threads() < threads {
            let (queue, reports, fetcher) = (self.queue.clone(), self.reports.clone(), self.fetcher.clone());
            self.threads
                .push(threads::spawn("probe", move || run(&queue, &reports, &fetcher))?);
        }
        Ok(())
    }

    /// Has threads end, those first that have nothing to do, until there are this many, at least one.
    pub(crate) fn shrink(&mut self, threads: usize) {
        self.forget_ended();
        while self.threads() > threads.max(1) && self.jobs.try_send(Task::End).is_ok() {
            self.ending += 1;
        }
    }

    fn forget_ended(&mut self) {
        let before = self.threads.len();
        self.threads.retain(|thread| !thread.is_finished());
        self.ending = self.ending.saturating_sub(before - self.threads.len());
    }

    /// Hands a job over. The owner keeps count: there are never more under way than the channel has room for.
    pub(crate) fn send(&self, job: ProbeJob) -> bool {
        self.jobs.try_send(Task::Ask(job)).is_ok()
    }
}

impl Drop for ProbePool {
    fn drop(&mut self) {
        self.fetcher.shutdown();
        // Both ends of the channel are here: drain it, then close it, and the threads end after what they are at.
        while self.queue.try_recv().is_ok() {}
        let (closed, _) = bounded(0);
        self.jobs = closed;
        self.threads.clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn run(queue: &Receiver<Task>, reports: &Sender<ProbeReport>, fetcher: &Fetcher) {
    while let Ok(Task::Ask(job)) = queue.recv() {
        let begin = Instant::now();
        let (outcome, redirected_to) = catch_unwind(AssertUnwindSafe(|| probe(fetcher, &job.addr, job.source)))
            .unwrap_or_else(|_| (Outcome::Failed("the probe panicked".to_owned()), None));
        let report = ProbeReport {
            id: job.id,
            probe: job.probe,
            outcome,
            redirected_to,
            took: begin.elapsed(),
        };
        if reports.send(report).is_err() {
            return;
        }
    }
}

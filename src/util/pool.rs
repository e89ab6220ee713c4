//! Named threads that take jobs from one bounded channel and return results on another.
//! Does not decide how many threads are useful: the owner states its demand.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::threads::{self, Joined};

/// Threads above the peak demand of a period of this length exit at its end. A burst of hanging nodes thus holds memory
/// and the user's process limit for 20 s at most.
const THREAD_IDLE: Duration = Duration::from_secs(10);
/// Wait before another attempt to start a thread after the system refused one.
const THREAD_RETRY: Duration = Duration::from_secs(1);

/// A finished job.
#[derive(Debug)]
pub(crate) struct Done<J, R> {
    pub(crate) job: J,
    /// `None` if the job panicked.
    pub(crate) result: Option<R>,
    pub(crate) took: Duration,
}

type Work<J, R> = Arc<dyn Fn(&J) -> R + Send + Sync>;

/// Threads that run `J` to `R`. Dropping the pool discards queued jobs and joins the threads.
pub(crate) struct Pool<J, R> {
    name: &'static str,
    run: Work<J, R>,
    /// `None` stops the thread that receives it.
    jobs: Sender<Option<J>>,
    queue: Receiver<Option<J>>,
    results: Sender<Done<J, R>>,
    threads: Vec<Joined>,
    /// Number of threads, without those that have a `None` in the queue.
    active: usize,
    /// Highest demand since the last shrink.
    peak_demand: usize,
    shrink_at: Instant,
    /// Set while the system gives no more threads.
    retry_at: Option<Instant>,
}

impl<J: Send + 'static, R: Send + 'static> Pool<J, R> {
    /// Creates a pool without threads for at most `max_jobs` queued or running jobs. Both channels have room for all of
    /// them, so neither the pool nor its owner ever blocks on a send. The owner may drop the receiver if results are
    /// returned otherwise.
    pub(crate) fn new(
        name: &'static str,
        max_jobs: usize,
        run: impl Fn(&J) -> R + Send + Sync + 'static,
        now: Instant,
    ) -> (Self, Receiver<Done<J, R>>) {
        let (jobs, queue) = bounded(max_jobs);
        let (results, inbox) = bounded(max_jobs);
        let pool = Self {
            name,
            run: Arc::new(run),
            jobs,
            queue,
            results,
            threads: Vec::new(),
            active: 0,
            peak_demand: 0,
            shrink_at: now + THREAD_IDLE,
            retry_at: None,
        };
        (pool, inbox)
    }

    /// Starts threads until `demand` jobs can run concurrently. Stops threads that no demand of the last period needed,
    /// except one.
    ///
    /// # Errors
    /// If the system refuses a thread. Existing threads continue, and the next attempt is made a second later.
    pub(crate) fn resize(&mut self, demand: usize, now: Instant) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        self.peak_demand = self.peak_demand.max(demand);
        if now >= self.shrink_at {
            while self.active > self.peak_demand.max(1) && self.jobs.try_send(None).is_ok() {
                self.active -= 1;
            }
            (self.peak_demand, self.shrink_at) = (0, now + THREAD_IDLE);
        }
        if self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return Ok(());
        }
        self.retry_at = None;
        while self.active < demand {
            let (queue, results, run) = (self.queue.clone(), self.results.clone(), Arc::clone(&self.run));
            let started = threads::spawn(self.name, move || work(&queue, &results, &*run));
            self.retry_at = started.is_err().then_some(now + THREAD_RETRY);
            self.threads.push(started?);
            self.active += 1;
        }
        Ok(())
    }

    /// Queues a job. Returns false if the queue is full.
    pub(crate) fn send(&self, job: J) -> bool {
        self.jobs.try_send(Some(job)).is_ok()
    }
}

impl<J, R> Pool<J, R> {
    /// Number of jobs that can run concurrently while the system gives no more threads.
    pub(crate) fn thread_limit(&self) -> Option<usize> {
        self.retry_at.map(|_| self.active)
    }

    /// The latest time for the next [`Pool::resize`].
    pub(crate) fn resize_at(&self) -> Instant {
        self.shrink_at
    }
}

impl<J, R> Drop for Pool<J, R> {
    fn drop(&mut self) {
        // The pool owns both ends of the channel: an empty and closed channel stops each thread after its current job.
        while self.queue.try_recv().is_ok() {}
        let (closed, _) = bounded(0);
        self.jobs = closed;
        self.threads.clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread's outer loop")]
fn work<J, R>(queue: &Receiver<Option<J>>, results: &Sender<Done<J, R>>, run: &dyn Fn(&J) -> R) {
    while let Ok(Some(job)) = queue.recv() {
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&job))).ok();
        let took = begin.elapsed();
        // An owner that needs no results has dropped the receiver.
        let _ = results.send(Done { job, result, took });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn pool<R: Send + 'static>(
        run: impl Fn(&u32) -> R + Send + Sync + 'static,
    ) -> (TestPool<R>, Receiver<Done<u32, R>>, Instant) {
        let now = Instant::now();
        let (pool, results) = Pool::new("test", 8, run, now);
        (pool, results, now)
    }

    type TestPool<R> = Pool<u32, R>;

    #[test]
    fn panicking_job_returns_no_result_and_pool_continues() {
        let (mut pool, results, now) = pool(|job: &u32| match job {
            0 => panic!("as the test requires"),
            job => job * 2,
        });
        pool.resize(1, now).expect("a thread");
        assert!(pool.send(0) && pool.send(21));
        let done: Vec<_> = results.iter().take(2).map(|done| (done.job, done.result)).collect();
        assert_eq!(done, [(0, None), (21, Some(42))]);
    }

    #[test]
    fn full_queue_rejects_job() {
        let (pool, _results, _) = pool(|_: &u32| ());
        assert!((0..8).all(|job| pool.send(job)));
        assert!(!pool.send(8));
    }

    #[test]
    fn unneeded_threads_exit_after_idle_period() {
        let (mut pool, _results, now) = pool(|_: &u32| ());
        pool.resize(6, now).expect("six threads");
        assert_eq!(pool.active, 6);
        pool.resize(2, pool.resize_at()).expect("no thread more");
        assert_eq!(pool.active, 6, "the peak of the first period was 6");
        pool.resize(2, pool.resize_at()).expect("no thread more");
        assert_eq!(pool.active, 2);
        pool.resize(0, pool.resize_at()).expect("no thread more");
        pool.resize(0, pool.resize_at()).expect("no thread more");
        assert_eq!(pool.active, 1, "one thread stays");
        pool.resize(3, now).expect("three threads");
        assert_eq!(pool.active, 3);
    }

    #[test]
    fn dropped_pool_discards_queue_and_joins_threads() {
        let (begun, has_begun) = bounded(1);
        let (release, released) = bounded::<()>(0);
        let (mut pool, results, now) = pool(move |_: &u32| {
            let _ = begun.try_send(());
            let _ = released.recv();
        });
        pool.resize(1, now).expect("a thread");
        assert!((0..3).all(|job| pool.send(job)));
        has_begun.recv().expect("the first job runs");
        drop(release);
        drop(pool);
        assert!(
            results.iter().count() <= 3,
            "the channel is closed: all threads are joined"
        );
    }
}

//! Starts threads with a name, a small stack and an owner that joins them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};

/// Stack of each thread. A TLS handshake in a debug build needs the most, less than half of it. Only touched pages are
/// resident.
const STACK_BYTES: usize = 512 * 1024;

/// A thread that is joined on drop. The owner stops the thread before it drops this.
#[derive(Debug)]
pub(crate) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    /// Whether the thread has exited.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Leaves the thread running without joining it.
    pub(crate) fn detach(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // The panic hook has logged a panic.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

/// Starts a thread.
///
/// # Errors
/// If the system refuses another thread.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Joined> {
    spawn_detached(name, run).map(|thread| Joined(Some(thread)))
}

/// Receives the name of the first vital thread that exits: a process that continues without its gate or its poller would
/// never be restarted.
pub(crate) type Alarm = Sender<String>;

/// Starts a thread that must run as long as the router.
///
/// # Errors
/// If the system refuses another thread.
pub(crate) fn spawn_vital(name: &str, alarm: &Alarm, run: impl FnOnce() + Send + 'static) -> io::Result<Joined> {
    let (alarm, thread) = (alarm.clone(), name.to_owned());
    spawn(name, move || {
        let _ = catch_unwind(AssertUnwindSafe(run));
        // If the channel is full, another thread has exited before.
        let _ = alarm.try_send(thread);
    })
}

/// Checks that `count` threads can run concurrently, for a library that panics otherwise.
///
/// # Errors
/// If the system refuses one of them.
pub(crate) fn check_room(count: usize) -> io::Result<()> {
    // Declared last, so dropped first: the closed channel stops the threads before they are joined.
    let mut threads = Vec::with_capacity(count);
    let (_open, closed) = bounded::<()>(0);
    for _ in 0..count {
        let closed = closed.clone();
        let thread = spawn("room", move || closed.recv().unwrap_or_default());
        let limits = "ulimit -u, or a container's limit on processes";
        let refused = |error| io::Error::other(format!("no room for {count} more threads ({limits}): {error}"));
        threads.push(thread.map_err(refused)?);
    }
    Ok(())
}

/// Locks data that is valid after each statement, even if a thread panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that is never joined, for work that cannot be interrupted.
#[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
pub(crate) fn spawn_detached<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_names_thread_that_exits_or_panics() {
        let (alarm, ended) = bounded(1);
        let thread = spawn_vital("one", &alarm, || ()).expect("room");
        assert_eq!(ended.recv(), Ok("one".to_owned()));
        drop(thread);
        let panics = spawn_vital("other", &alarm, || panic!("as the test requires")).expect("room");
        assert_eq!(ended.recv(), Ok("other".to_owned()));
        drop(panics);
        assert!(ended.is_empty());
    }
}

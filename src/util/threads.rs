//! Plain threads with a name, a small stack and an owner that joins them.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Stack of each thread. A TLS handshake in a debug build is the deepest and stays below half of it; only pages
/// that were touched are resident.
const STACK_BYTES: usize = 512 * 1024;

/// A thread that is joined when this is dropped. The owner tells the thread to end before it drops this.
#[derive(Debug)]
pub(crate) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    /// Whether joining it would not wait.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Gives up waiting for it.
    pub(crate) fn detach(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(Err(_)) = self.0.take().map(JoinHandle::join) {
            log::error!("thread failed: a thread has exited by a panic");
        }
    }
}

/// Starts a thread.
///
/// # Errors
/// When the system has no room for another.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Joined> {
    spawn_detached(name, run).map(|thread| Joined(Some(thread)))
}

/// Reports that a thread has ended which the router can't do without: a process that lives on without its gate or its
/// poller would never be started again.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Sender<String>);

impl Alarm {
    /// The other end is given the name of the first such thread.
    pub(crate) fn new() -> (Self, Receiver<String>) {
        let (sender, receiver) = bounded(1);
        (Self(sender), receiver)
    }
}

/// Rings when it is dropped, be it by a panic.
struct Ring(Alarm, String);

impl Drop for Ring {
    fn drop(&mut self) {
        // When there is no room, it rings already.
        let _ = self.0.0.try_send(std::mem::take(&mut self.1));
    }
}

/// Starts a thread that is to run as long as the router.
///
/// # Errors
/// When the system has no room for another.
pub(crate) fn spawn_vital(name: &str, alarm: &Alarm, run: impl FnOnce() + Send + 'static) -> io::Result<Joined> {
    let ring = Ring(alarm.clone(), name.to_owned());
    spawn(name, move || {
        let _ring = ring;
        run();
    })
}

/// Whether so many threads can be had at once: for a library that panics where they can't.
///
/// # Errors
/// When the system has no room for all of them.
pub(crate) fn check_room(count: usize) -> io::Result<()> {
    // Declared last, so dropped first: closing the channel is what ends the threads that are joined then.
    let mut threads = Vec::with_capacity(count);
    let (_open, closed) = bounded::<()>(0);
    for _ in 0..count {
        let closed = closed.clone();
        let thread = spawn("room", move || {
            let _ = closed.recv();
        });
        threads.push(thread.map_err(|error| {
            let limits = "ulimit -u, or a container's limit on processes";
            io::Error::new(
                error.kind(),
                format!("no room for {count} more threads ({limits}): {error}"),
            )
        })?);
    }
    Ok(())
}

/// Starts a thread that nobody waits for: for what can't be cut short.
#[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
pub(crate) fn spawn_detached(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_tells_which_thread_has_ended_by_a_panic_or_otherwise() {
        let (alarm, ended) = Alarm::new();
        let thread = spawn_vital("one", &alarm, || ()).expect("room");
        assert_eq!(ended.recv(), Ok("one".to_owned()));
        drop(thread);
        let panics = spawn_vital("other", &alarm, || panic!("as the test wants it")).expect("room");
        assert_eq!(ended.recv(), Ok("other".to_owned()));
        drop(panics);
        assert!(ended.is_empty());
    }
}

//! Plain threads with a name, a small stack and an owner that joins them.

use std::io;
use std::thread::{self, JoinHandle};

/// Stack of our threads. A TLS handshake in a debug build is the deepest and stays below half of it; only pages
/// that were touched are resident.
const STACK_BYTES: usize = 512 * 1024;

/// A thread that is joined when this is dropped. Whoever drops it has told the thread to end before.
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
            log::error!("a thread ended by a panic");
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

/// Starts a thread that nobody waits for: for what can't be cut short.
#[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
pub(crate) fn spawn_detached(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(run)
}

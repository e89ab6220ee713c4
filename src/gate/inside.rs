//! What is inside: private connections to workers, and how the workers are told to end.

use std::io;
use std::os::unix::net::UnixStream;

use crate::util::threads::Joined;

/// Workers that serve private connections.
pub(crate) struct Inside {
    /// The gate's ends of the private connections.
    pub(crate) lanes: Vec<UnixStream>,
    pub(crate) workers: Workers,
}

/// Opens the inside, at the start and whenever it was lost.
pub(crate) type Open = Box<dyn Fn() -> io::Result<Inside> + Send>;

/// Threads that answer; told to end when this is dropped, and waited for.
pub(crate) struct Workers {
    end: Box<dyn Fn() + Send>,
    threads: Vec<Joined>,
}

impl Workers {
    /// None yet; `end` will tell all of them to end, and must not wait for them.
    pub(crate) fn new(end: impl Fn() + Send + 'static) -> Self {
        Self {
            end: Box::new(end),
            threads: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, thread: Joined) {
        self.threads.push(thread);
    }

    /// Tells them to end, without waiting for one that is stuck.
    pub(super) fn tell_to_end(&self) {
        (self.end)();
    }

    pub(super) fn have_ended(&self) -> bool {
        self.threads.iter().all(Joined::is_finished)
    }

    /// Leaves them to themselves: one that is stuck must not keep the process from ending.
    pub(super) fn leave(mut self) {
        self.threads.drain(..).for_each(Joined::detach);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.tell_to_end();
    }
}

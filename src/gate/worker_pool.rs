//! The workers: the gate's ends of the private connections to them, and how they are told to end.

use std::io;
use std::os::unix::net::UnixStream;

use super::worker_connection::WorkerConnection;
use crate::util::threads::Joined;

/// Threads that answer what comes over private connections; told to end when this is dropped, and waited for.
pub(crate) struct WorkerPool {
    pub(super) connections: Vec<WorkerConnection>,
    end: Box<dyn Fn() + Send>,
    threads: Vec<Joined>,
}

/// Starts a pool: the first one, and another whenever one has failed.
pub(crate) type Spawn = Box<dyn Fn() -> io::Result<WorkerPool> + Send>;

impl WorkerPool {
    /// Of no thread yet; `end` tells all of them to end without waiting for them.
    pub(crate) fn new(end: impl Fn() + Send + 'static) -> Self {
        Self {
            connections: Vec::new(),
            end: Box::new(end),
            threads: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, thread: Joined) {
        self.threads.push(thread);
    }

    /// Takes over private connections to its threads, which do not block.
    pub(crate) fn connect(&mut self, streams: Vec<UnixStream>) {
        self.connections = streams.into_iter().map(WorkerConnection::new).collect();
    }

    /// Tells its threads to end, without waiting for one that is stuck.
    pub(super) fn tell_to_end(&self) {
        (self.end)();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.threads.iter().all(Joined::is_finished)
    }

    /// Whether some of them owe an answer.
    pub(super) fn is_busy(&self) -> bool {
        self.connections.iter().any(|connection| connection.load() > 0)
    }

    /// Leaves its threads to themselves: one that is stuck must not keep the process from ending.
    pub(super) fn leave(mut self) {
        self.threads.drain(..).for_each(Joined::detach);
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.tell_to_end();
    }
}

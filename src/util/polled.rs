//! A source that is read periodically: its last accepted value, and why the last attempt was rejected.
//!
//! One rule applies to all such sources: a rejected attempt changes nothing, and a problem is reported once.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::threads::lock;

/// The state of one source. Its reader writes it; `/status` reads it.
#[derive(Debug)]
pub(crate) struct Polled<T> {
    /// A path or a URL without secrets.
    name: String,
    state: Mutex<Snapshot<T>>,
}

/// The state of a source at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot<T> {
    /// The last accepted value. It stays in effect while attempts are rejected.
    pub(crate) value: Option<Arc<T>>,
    /// When the value was accepted.
    pub(crate) accepted: Option<Instant>,
    /// Why the last attempt was rejected; `None` if it was accepted.
    pub(crate) problem: Option<String>,
}

impl<T> Polled<T> {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: Mutex::new(Snapshot {
                value: None,
                accepted: None,
                problem: None,
            }),
        }
    }

    /// The path or the URL of the source.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn snapshot(&self) -> Snapshot<T>
    where
        T: Clone,
    {
        lock(&self.state).clone()
    }

    /// Returns the last accepted value.
    pub(crate) fn value(&self) -> Option<Arc<T>> {
        lock(&self.state).value.clone()
    }

    /// Replaces the value. Returns the state before.
    pub(crate) fn accept(&self, value: Arc<T>, now: Instant) -> Snapshot<T> {
        let next = Snapshot {
            value: Some(value),
            accepted: Some(now),
            problem: None,
        };
        std::mem::replace(&mut *lock(&self.state), next)
    }

    /// Keeps the value. Returns whether the problem is to be reported: the previous attempt had another one, or none.
    pub(crate) fn reject(&self, problem: &str) -> bool {
        let problem = Some(problem.to_owned());
        let mut state = lock(&self.state);
        std::mem::replace(&mut state.problem, problem) != state.problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn rejected_value_keeps_last_and_is_reported_once() {
        let (polled, now) = (Polled::new("ips.txt"), Instant::now());
        assert!(polled.reject("missing"));
        assert_eq!(polled.accept(Arc::new(1), now).problem.as_deref(), Some("missing"));
        assert_eq!(polled.snapshot().problem, None);
        for (problem, is_reported) in [("missing", true), ("missing", false), ("empty", true)] {
            assert_eq!(polled.reject(problem), is_reported, "{problem}");
        }
        assert_eq!(
            (polled.value(), polled.snapshot().accepted),
            (Some(Arc::new(1)), Some(now))
        );
        assert_eq!(polled.accept(Arc::new(2), now).value, Some(Arc::new(1)));
    }
}

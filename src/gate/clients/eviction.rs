//! Selects the connection to evict for a new one.

use std::cmp::Reverse;
use std::time::Instant;

use super::{Clients, Holder, Socket};
use crate::gate::connection::{Connection, Event};
use crate::gate::refusal::Refusal;
use crate::metrics::Refused;

/// Connections that are examined to find the one to evict. With more connections, the next search continues after the
/// last one: a flood of new connections must not cost a scan of 65,536 each.
const MAX_CANDIDATES: usize = 1024;

impl Clients {
    /// If the client is at its share, closes its longest-idle connection.
    pub(super) fn close_own_idle(&mut self, holder: Holder, now: Instant) -> bool {
        let is_idle = |connection: &Connection| {
            let age = now.saturating_duration_since(connection.since());
            connection.idle_after().is_some_and(|least| age >= least)
        };
        let own = self.held.get(&holder).into_iter().flatten().take(MAX_CANDIDATES);
        let idle = own
            .filter_map(|key| Some((*key, &self.sockets.get(*key)?.connection)))
            .filter(|(_, connection)| is_idle(connection));
        let longest = idle.min_by_key(|(_, connection)| connection.since());
        let longest = longest.map(|(key, _)| key);
        longest.map(|key| self.close(key, Some(Refused::MadeRoom))).is_some()
    }

    /// Evicts the connection that has waited longest for its request or its reader, of the client with the most
    /// connections. A connection that waits for a worker gets 503, and is evicted only if no other qualifies. A client
    /// with more connections than the new one's client evicts none.
    pub(super) fn make_room(&mut self, new: Holder, now: Instant) -> bool {
        let held_by_new = self.held_by(new);
        let is_evictable = |Socket { holder, connection, .. }: &Socket| {
            let (held, age) = (self.held_by(*holder), now.saturating_duration_since(connection.since()));
            let is_old = connection.evictable_after().map(|least| age >= least);
            let is_old = is_old.filter(|_| *holder != Holder::Rejected);
            is_old.is_some_and(|is_old| held > held_by_new + 1 || (held >= held_by_new && is_old))
        };
        let candidates = self.sockets.iter_from(self.next_candidate).take(MAX_CANDIDATES);
        let candidates = candidates.filter(|(_, socket)| is_evictable(socket));
        let victim = candidates.max_by_key(|(_, Socket { holder, connection, .. })| {
            let is_waiting = connection.is_waiting();
            (self.held_by(*holder), !is_waiting, Reverse(connection.since()))
        });
        let victim = victim.map(|(key, socket)| (key, socket.connection.is_waiting()));
        self.next_candidate = (self.next_candidate + MAX_CANDIDATES) % self.config.max_connections;
        let Some((key, is_waiting)) = victim else {
            return false;
        };
        if is_waiting {
            self.pump(key, Event::Rejected(Refusal::BUSY), now);
        }
        self.close(key, Some(Refused::MadeRoom));
        true
    }
}

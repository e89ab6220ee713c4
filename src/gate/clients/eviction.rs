//! Selects the connection to evict for a new one.

use std::cmp::Reverse;
use std::time::Instant;

use super::{Clients, Holder, Socket};
use crate::gate::connection::{Connection, Event, MIN_WRITE};
use crate::gate::refusal::Refusal;
use crate::metrics::Refused;

/// Connections that are examined to find the one to evict. With more connections, the next search continues after the
/// last one: a flood of new connections must not cost a scan of 65,536 each.
const MAX_CANDIDATES: usize = 1024;

impl Clients {
    /// If the client is at its share, closes its longest-idle connection.
    pub(super) fn close_own_idle(&mut self, holder: Holder, now: Instant) -> bool {
        let Holder::Client(client) = holder else {
            return false;
        };
        // A client may still be receiving a last response that is long, or be about to send its first request.
        let is_idle = |connection: &Connection| {
            let is_old = now.saturating_duration_since(connection.since()) >= MIN_WRITE;
            let is_over = connection.is_lingering() && !connection.may_hold_unread();
            connection.is_idle() || is_over || (connection.owes_nothing() && is_old)
        };
        let own = self.held.get(&client).into_iter().flatten().take(MAX_CANDIDATES);
        let idle = own
            .filter_map(|key| Some((*key, &self.sockets.get(*key)?.connection)))
            .filter(|(_, connection)| is_idle(connection));
        let longest = idle.min_by_key(|(_, connection)| connection.since());
        let longest = longest.map(|(key, _)| key);
        longest.is_some_and(|key| self.close(key, Some(Refused::MadeRoom)))
    }

    /// Evicts the connection that has waited longest for its request or its reader, of the client with the most
    /// connections. A connection that waits for a worker gets 503, and is evicted only if no other qualifies. A client
    /// with more connections than the new one's client evicts none.
    pub(super) fn make_room(&mut self, newcomer: Holder, now: Instant) -> bool {
        let holds = self.held_by(newcomer);
        let gives_way = |socket: &Socket| {
            let theirs = self.held_by(socket.holder);
            let is_long = |least| now.saturating_duration_since(socket.connection.since()) >= least;
            let least = socket
                .connection
                .gives_way_after()
                .filter(|_| socket.holder != Holder::Nobody);
            least.is_some_and(|least| theirs > holds + 1 || (theirs >= holds && is_long(least)))
        };
        let candidates = self.sockets.iter_from(self.next_candidate).take(MAX_CANDIDATES);
        let victim = candidates
            .filter(|(_, socket)| gives_way(socket))
            .max_by_key(|(_, socket)| {
                let connection = &socket.connection;
                let holds = self.held_by(socket.holder);
                (holds, !connection.is_waiting(), Reverse(connection.since()))
            })
            .map(|(key, _)| key);
        self.next_candidate = (self.next_candidate + MAX_CANDIDATES) % self.settings.max_connections;
        let Some(victim) = victim else {
            return false;
        };
        if self
            .sockets
            .get(victim)
            .is_some_and(|socket| socket.connection.is_waiting())
        {
            self.pump(victim, Event::Rejected(Refusal::Busy), now);
        }
        self.close(victim, Some(Refused::MadeRoom))
    }
}

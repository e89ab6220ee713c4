//! Selects the connection to evict for a new one.

use std::cmp::Reverse;
use std::time::Instant;

use thunderdome::{Arena, Index as Key};

use super::{Clients, Holder, Socket};
use crate::gate::connection::Event;
use crate::gate::refusal::Refusal;
use crate::metrics::Refused;

/// Connections that are examined to find the one to evict. With more connections, the next search continues after the
/// last one: a flood of new connections must not cost a scan of 65,536 each.
const MAX_CANDIDATES: usize = 1024;

/// All values by slot, from this slot on and then from the first.
pub(super) fn iter_from<T>(arena: &Arena<T>, slot: usize) -> impl Iterator<Item = (Key, &T)> {
    let end = arena.capacity();
    let slots = (slot.min(end)..end).chain(0..slot.min(end));
    slots.filter_map(|slot| arena.get_by_slot(slot as u32))
}

impl Clients {
    /// If the client is at its share, closes its longest-idle connection.
    pub(super) fn close_own_idle(&mut self, holder: Holder, now: Instant) -> bool {
        let own = self.held.get(&holder).into_iter().flatten().take(MAX_CANDIDATES);
        let idle = own.filter_map(|key| {
            let connection = &self.sockets.get(*key)?.connection;
            let age = connection.age(now);
            (age >= connection.idle_after()?).then_some((age, Reverse(*key)))
        });
        let longest = idle.max().map(|(_, Reverse(key))| key);
        longest.map(|key| self.close(key, Some(Refused::MadeRoom))).is_some()
    }

    /// Evicts the connection that has waited longest for its request or its reader, of the client with the most
    /// connections. A connection that waits for a worker gets 503, and is evicted only if no other qualifies. A client
    /// with more connections than the new one's client evicts none.
    pub(super) fn make_room(&mut self, new: Holder, now: Instant) -> bool {
        let held_by_new = self.held_by(new);
        let ranked = |(key, Socket { holder, connection, .. }): (Key, &Socket)| {
            let (held, age) = (self.held_by(*holder), connection.age(now));
            let is_old = age >= connection.evictable_after()?;
            let may_close = held > held_by_new + 1 || (held >= held_by_new && is_old);
            let rank = (held, !connection.is_waiting(), age);
            (may_close && *holder != Holder::Rejected).then_some((rank, key))
        };
        let candidates = iter_from(&self.sockets, self.next_candidate).take(MAX_CANDIDATES);
        let victim = candidates.filter_map(ranked).max();
        self.next_candidate = (self.next_candidate + MAX_CANDIDATES) % self.config.max_connections;
        let Some(((_, is_not_waiting, _), key)) = victim else {
            return false;
        };
        if !is_not_waiting {
            self.pump(key, Event::Rejected(Refusal::BUSY), now);
        }
        self.close(key, Some(Refused::MadeRoom));
        true
    }
}

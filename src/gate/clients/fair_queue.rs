//! The requests that wait for a ticket: one of each client in turn, so that no client waits for all requests of another.

use std::collections::{HashMap, VecDeque};

use thunderdome::Index as Key;

use crate::client::Client;

/// Connections, each with one request.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// Those of each client in order of arrival, at least one.
    connections: HashMap<Client, VecDeque<Key>>,
    /// The clients in turn, each once.
    turns: VecDeque<Client>,
}

impl FairQueue {
    pub(super) fn push(&mut self, client: Client, key: Key) {
        let keys = self.connections.entry(client).or_default();
        if keys.is_empty() {
            self.turns.push_back(client);
        }
        keys.push_back(key);
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let client = self.turns.pop_front()?;
        let keys = self.connections.get_mut(&client)?;
        let key = keys.pop_front();
        if keys.is_empty() {
            self.connections.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        key
    }

    pub(super) fn retain(&mut self, is_waiting: impl Fn(Key) -> bool) {
        self.connections.retain(|_, keys| {
            keys.retain(|key| is_waiting(*key));
            !keys.is_empty()
        });
        self.turns.retain(|client| self.connections.contains_key(client));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(last: u8) -> Client {
        Client::from(IpAddr::from([127, 0, 0, last]))
    }

    fn queue(clients: &[u8]) -> FairQueue {
        let mut queue = FairQueue::default();
        for (slot, last) in (0..).zip(clients) {
            let key = Key::from_bits(1 << 32 | slot).expect("a key");
            queue.push(client(*last), key);
        }
        queue
    }

    fn order(mut queue: FairQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(Key::slot).collect()
    }

    #[test]
    fn clients_take_turns() {
        assert_eq!(order(queue(&[1, 1, 1, 2, 3, 2, 1])), [0, 3, 4, 1, 5, 2, 6]);
    }

    #[test]
    fn client_without_waiting_connections_takes_no_turn() {
        let mut queue = queue(&[1, 2, 1, 2]);
        queue.retain(|key| key.slot() % 2 == 1);
        assert_eq!(order(queue), [1, 3]);
    }
}

//! The requests that wait for a ticket: one of each client in turn, so that nobody waits for all requests of another
//! client.

use std::collections::VecDeque;

use thunderdome::Index as Key;

use crate::client::Client;

/// Connections, each with one request.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// The clients in turn, each with its connections in order of arrival. None is without connections.
    clients: VecDeque<(Client, VecDeque<Key>)>,
}

impl FairQueue {
    pub(super) fn push(&mut self, client: Client, key: Key) {
        match self.clients.iter_mut().find(|(other, _)| *other == client) {
            Some((_, keys)) => keys.push_back(key),
            None => self.clients.push_back((client, VecDeque::from([key]))),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let (client, mut keys) = self.clients.pop_front()?;
        let key = keys.pop_front();
        if !keys.is_empty() {
            self.clients.push_back((client, keys));
        }
        key
    }

    pub(super) fn retain(&mut self, is_waiting: impl Fn(Key) -> bool) {
        self.clients.retain_mut(|(_, keys)| {
            keys.retain(|key| is_waiting(*key));
            !keys.is_empty()
        });
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

//! The budget for new model ids: each can cost a query to every node.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::client::Client;

/// The window of all three limits.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// New ids in a window. 20 queries per id fill the rate of all queries.
pub(super) const MAX: usize = 30;
/// New ids of one subnet in a window: more than the models that one client tries out, and five subnets are needed to
/// use up all.
pub(super) const MAX_OF_SUBNET: usize = 6;
/// Reserved for subnets without a new id in the window, so that a few busy subnets cannot use up the budget.
pub(super) const RESERVED: usize = 10;

/// The new ids of the last window, oldest first.
#[derive(Debug, Default)]
pub(super) struct NewIds(VecDeque<(Instant, Client)>);

impl NewIds {
    /// Takes one new id from the budget.
    ///
    /// # Errors
    /// The time until the budget has one for this client.
    pub(super) fn take(&mut self, client: Client, now: Instant) -> Result<(), Duration> {
        let subnet = client.subnet();
        let left = |at: Instant| WINDOW.saturating_sub(now.saturating_duration_since(at));
        while self.0.front().is_some_and(|(at, _)| left(*at).is_zero()) {
            self.0.pop_front();
        }
        let all: Vec<Instant> = self.0.iter().map(|(at, _)| *at).collect();
        let of_subnet = self.0.iter().filter(|(_, other)| *other == subnet);
        let of_subnet: Vec<Instant> = of_subnet.map(|(at, _)| *at).collect();
        let max_in_all = if of_subnet.is_empty() { MAX } else { MAX - RESERVED };
        // The oldest ids that have to leave the window until there are fewer than `max`.
        let wait = |ids: &[Instant], max: usize| ids.len().checked_sub(max).map(|last| left(ids[last]));
        match wait(&all, max_in_all).max(wait(&of_subnet, MAX_OF_SUBNET)) {
            Some(wait) => Err(wait),
            None => {
                self.0.push_back((now, subnet));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(number: u32) -> Client {
        Client::V4(number << 8 | 7)
    }

    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn now() -> Instant {
        Instant::now()
    }

    fn granted(ids: &mut NewIds, client: Client, now: Instant) -> usize {
        (0..100).take_while(|_| ids.take(client, now).is_ok()).count()
    }

    #[test]
    fn subnet_gets_six_and_waits_for_its_oldest() {
        let (mut ids, start) = (NewIds::default(), now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(ids.take(Client::V4(1), at(0)), Ok(()));
        assert_eq!(granted(&mut ids, Client::V4(255), at(10)), MAX_OF_SUBNET - 1);
        assert_eq!(ids.take(Client::V4(1), at(20)), Err(Duration::from_secs(40)));
        assert_eq!(ids.take(Client::V4(256), at(20)), Ok(()), "another /24");
        assert_eq!(ids.take(Client::V4(1), at(60)), Ok(()));
        assert_eq!(ids.take(Client::V4(1), at(60)), Err(Duration::from_secs(10)));
        assert_eq!(granted(&mut ids, Client::V6(0xFFFF), at(60)), MAX_OF_SUBNET);
        assert_eq!(granted(&mut ids, Client::V6(0), at(60)), 0, "the same /48");
        assert_eq!(granted(&mut ids, Client::V6(0x1_0000), at(60)), MAX_OF_SUBNET);
    }

    #[test]
    fn busy_subnets_leave_ten_to_others() {
        let (mut ids, now) = (NewIds::default(), now());
        let busy: usize = (0..5).map(|number| granted(&mut ids, subnet(number), now)).sum();
        assert_eq!(
            busy,
            MAX - RESERVED + 1,
            "the fifth subnet's first id is from the reserve"
        );
        let others: usize = (10..100).map(|number| granted(&mut ids, subnet(number), now)).sum();
        assert_eq!(others, RESERVED - 1);
        assert_eq!(ids.take(subnet(200), now), Err(WINDOW));
        assert_eq!(granted(&mut ids, subnet(200), now + WINDOW), MAX_OF_SUBNET);
    }

    #[test]
    fn thirty_subnets_get_one_each() {
        let (mut ids, now) = (NewIds::default(), now());
        let granted = (0..100).filter(|number| ids.take(subnet(*number), now).is_ok()).count();
        assert_eq!((granted, ids.0.len()), (MAX, MAX));
    }
}

//! The model: nodes with a FIFO queue and a number of job slots, exponential jobs and arrivals, clients that send a job
//! to the first address in the response, and probes as of the poller. Time is simulated.
//!
//! "Earliest completion" and "counts only" use the router's registry as the workers and the poller do. A seed determines everything
//! else, with the same requests for each policy. The registry orders equal nodes by random numbers without this seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use infernet_router::client::Client;
use infernet_router::node::{ContainerId, NodeAddr, Rank, Running};
use infernet_router::registry::{NodeId, Page, PromisePolicy, Purpose, Registry};

use crate::random::Random;
use crate::scenario::{Clients, Oddity, Scenario};

/// Duration of a probe. The node counts its jobs half-way.
const PROBE: Duration = Duration::from_millis(50);
/// Simulated time before the measurement. It fills the queues and the router's records, which last a third of it.
const WARM_UP: Duration = Duration::from_secs(1_800);
/// Intervals between two listings of the joining node. It is listed for half of this time.
const INTERVALS_PER_JOIN: u32 = 8;
const CONTAINER: &str = "job";
/// Container of node 0 only, by which a client makes it appear busy.
const RIVAL: &str = "rival";

/// Policy that selects the node of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The shortest expected wait, from the true queues and speeds at the time of the request.
    Perfect,
    /// The registry with `PROMISES=on`.
    EarliestCompletion,
    /// The registry with `PROMISES=off`.
    CountsOnly,
    Random,
}

/// Result of one run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub mean_seconds: f64,
    /// Share of the jobs that node 0 received.
    pub share_of_first: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Paint,
    Round(usize),
    Probe { replica: usize, node: usize },
    Count { replica: usize, node: usize },
    Report { replica: usize, node: usize, pending: u64 },
    Join,
    Leave,
}

struct Node {
    addr: NodeAddr,
    /// Speed of one job. A node with N slots has N times the speed.
    speed: f64,
    /// Time at which each job slot is free.
    free: BinaryHeap<Reverse<Duration>>,
    /// Completion time of each job.
    ends: BinaryHeap<Reverse<Duration>>,
    is_listed: bool,
}

impl Node {
    fn queue(&mut self, now: Duration) -> usize {
        while self.ends.peek().is_some_and(|Reverse(end)| *end <= now) {
            self.ends.pop();
        }
        self.ends.len()
    }

    /// Returns the mean time until one more job would finish, in jobs of speed 1.
    fn expected(&mut self, now: Duration) -> f64 {
        let (places, queue) = (self.free.len(), self.queue(now));
        let wait = (queue + 1).saturating_sub(places) as f64 / places as f64;
        (wait + 1.0) / self.speed
    }

    /// Returns the completion time of a job that arrives now.
    fn take(&mut self, job: Duration, now: Duration) -> Duration {
        let Reverse(free) = self.free.pop().expect("a node takes one job at least");
        let end = free.max(now) + job.div_f64(self.speed);
        self.free.push(Reverse(end));
        self.ends.push(Reverse(end));
        end
    }
}

/// One router, and its view of the nodes.
struct Replica {
    registry: Registry,
    ids: Vec<Option<NodeId>>,
    is_known: Vec<bool>,
}

struct Run<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    replicas: Vec<Replica>,
    nodes: Vec<Node>,
    began: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    /// Arrivals and their times, the same for each policy.
    requests: Random,
    choices: Random,
    joined: Option<Duration>,
    responses: Vec<f64>,
    to_first: usize,
}

/// Runs a scenario and measures it for the given simulated time.
pub fn run(scenario: &Scenario, policy: Policy, measured: Duration, seed: u64) -> Measured {
    let mut run = Run::new(scenario, policy, seed);
    let mut has_slowed = false;
    while run.now < WARM_UP + measured {
        let Some(Reverse((now, event))) = run.events.pop() else {
            break;
        };
        run.now = now;
        match event {
            Event::Arrival => {
                if let Some((node, response)) = run.arrival()
                    && run.counts()
                {
                    run.responses.push(response.as_secs_f64());
                    run.to_first += usize::from(node == 0);
                }
            }
            Event::Paint => run.paint(),
            Event::Round(replica) => run.begin_round(replica),
            Event::Probe { replica, node } => run.probe(replica, node),
            Event::Count { replica, node } => run.count(replica, node),
            Event::Report { replica, node, pending } => run.report(replica, node, pending),
            Event::Join => run.join(),
            Event::Leave => run.leave(),
        }
        if scenario.oddity == Some(Oddity::SlowsDown) && !has_slowed && run.now > WARM_UP + measured / 2 {
            run.nodes[0].speed /= 4.0;
            has_slowed = true;
        }
    }
    Measured {
        mean_seconds: run.responses.iter().sum::<f64>() / run.responses.len() as f64,
        share_of_first: run.to_first as f64 / run.responses.len() as f64,
    }
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, policy: Policy, seed: u64) -> Self {
        let promises = match policy {
            Policy::CountsOnly => PromisePolicy::Off,
            _ => PromisePolicy::On {
                weight: 1,
                max_speedup: scenario.max_speedup,
            },
        };
        #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
        let began = Instant::now();
        let mut speeds = scenario.speeds();
        if let Some(Oddity::Rising(liars)) = scenario.oddity {
            speeds.extend(vec![1.0; liars]);
        }
        let replica = |_| Replica {
            registry: Registry::new(promises, scenario.interval, began),
            ids: vec![None; speeds.len()],
            is_known: vec![false; speeds.len()],
        };
        let node = |(at, speed): (usize, &f64)| {
            let ip = Ipv4Addr::from_bits(0x0A00_0000 | at as u32);
            Node {
                addr: NodeAddr::parse(&format!("{ip}:4000")).expect("an address"),
                speed: *speed,
                free: vec![Reverse(Duration::ZERO); scenario.in_parallel].into(),
                ends: BinaryHeap::new(),
                is_listed: false,
            }
        };
        let mut run = Self {
            scenario,
            policy,
            replicas: (0..scenario.replicas).map(replica).collect(),
            nodes: speeds.iter().enumerate().map(node).collect(),
            began,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            requests: Random::new(seed, 1),
            choices: Random::new(seed, 2),
            joined: None,
            responses: Vec::new(),
            to_first: 0,
        };
        (0..run.nodes.len()).for_each(|at| run.list(at));
        for replica in 0..scenario.replicas {
            // Spread over the interval without a pattern (the golden ratio).
            let phase = scenario.interval.mul_f64((replica as f64 * 0.618).fract());
            run.after(phase, Event::Round(replica));
        }
        run.after(PROBE, Event::Arrival);
        match scenario.oddity {
            Some(Oddity::Joins) => run.after(scenario.interval.mul_f64(1.5), Event::Leave),
            Some(Oddity::Painted | Oddity::Attacked) => run.after(PROBE, Event::Paint),
            _ => {}
        }
        run
    }

    /// Adds a new node, which is probed immediately as by the poller.
    fn list(&mut self, at: usize) {
        let now = self.instant();
        let node = &mut self.nodes[at];
        node.is_listed = true;
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            // With misreporting nodes, no node is listed: four listed nodes alone would determine the typical speed.
            let rank = match (self.scenario.oddity, node.addr.socket_addr()) {
                (Some(Oddity::Rising(_)), Some(socket)) => Rank::Explorer(socket),
                _ => Rank::Listed(at as u32),
            };
            let id = replica.registry.insert(node.addr.clone(), rank, now);
            replica.ids[at] = Some(id);
            let probe = Event::Probe {
                replica: number,
                node: at,
            };
            self.events.push(Reverse((self.now, probe)));
        }
    }

    fn instant(&self) -> Instant {
        self.began + self.now
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.events.push(Reverse((self.now + delay, event)));
    }

    /// Simulates a request. Returns the node and response time of its job, if it sends one.
    fn arrival(&mut self) -> Option<(usize, Duration)> {
        let Scenario { job, used, .. } = *self.scenario;
        let gap = self.requests.exponential(self.scenario.between_jobs().mul_f64(used));
        self.after(gap, Event::Arrival);
        let client = self.client();
        let job = self.requests.exponential(job);
        let is_used = self.requests.share() < used;
        let bypasses = self.requests.share() < self.scenario.bypassing;
        let chosen = if bypasses { self.any() } else { self.choose(client) };
        let chosen = chosen.filter(|_| is_used)?;
        if chosen == 0 && self.scenario.oddity == Some(Oddity::Dead) {
            return Some((0, Duration::ZERO));
        }
        let now = self.now;
        Some((chosen, self.nodes[chosen].take(job, now) - now))
    }

    /// A client of one /24 requests the container of node 0 only, and sends no job.
    fn paint(&mut self) {
        let mean = match self.scenario.oddity {
            Some(Oddity::Attacked) => self.scenario.interval / 1_000,
            _ => self.scenario.between_jobs(),
        };
        let gap = self.choices.exponential(mean);
        self.after(gap, Event::Paint);
        let client = Client::V4(0x0909_0900 | self.choices.next() as u32 & 0xFF);
        self.ask(RIVAL, client);
    }

    fn client(&mut self) -> Client {
        let random = &mut self.requests;
        // Clients are spread over the address space, so that two rarely share a subnet.
        let spread = |number: usize| Client::V4((number as u32 + 1).wrapping_mul(0x9E37_79B1));
        match self.scenario.clients {
            Clients::Others => Client::V4(random.next() as u32),
            Clients::Equal(clients) => spread(random.below(clients)),
            Clients::Subnets(subnets) => {
                let subnet = random.below(subnets as usize) as u32;
                Client::V4(0x0A00_0000 | subnet << 8 | random.next() as u32 & 0xFF)
            }
        }
    }

    fn ask(&mut self, container: &str, client: Client) -> Option<usize> {
        let replica = self.choices.below(self.replicas.len());
        let page = Page { n: 1, offset: 0 };
        let registry = &self.replicas[replica].registry;
        let answer = registry.answer([container].into_iter(), page, client, Purpose::Route, self.instant());
        answer.expect("one container").first().and_then(index_of)
    }

    fn choose(&mut self, client: Client) -> Option<usize> {
        match self.policy {
            Policy::EarliestCompletion | Policy::CountsOnly => self.ask(CONTAINER, client),
            Policy::Random => self.any(),
            Policy::Perfect => {
                let (now, choices) = (self.now, &mut self.choices);
                let known = self.nodes.iter_mut().enumerate().filter(|(_, node)| node.is_listed);
                let waits = known.map(|(at, node)| (node.expected(now), choices.next(), at));
                waits
                    .min_by(|(one, tie, _), (other, other_tie, _)| one.total_cmp(other).then(tie.cmp(other_tie)))
                    .map(|(.., at)| at)
            }
        }
    }

    /// Returns a random node that the router considers available.
    fn any(&mut self) -> Option<usize> {
        let is_known = &self.replicas[0].is_known;
        let known = is_known.len() - usize::from(!is_known.last()?);
        Some(self.choices.below(known))
    }

    fn begin_round(&mut self, replica: usize) {
        self.replicas[replica].registry.begin_round();
        let interval = self.scenario.interval;
        let spacing = interval
            .mul_f64(self.scenario.round_share)
            .div_f64(self.nodes.len() as f64);
        for node in 0..self.nodes.len() {
            self.after(spacing.mul_f64(node as f64 + 1.0), Event::Probe { replica, node });
        }
        self.after(interval, Event::Round(replica));
    }

    fn probe(&mut self, replica: usize, node: usize) {
        let now = self.instant();
        let asking = &self.replicas[replica];
        if let Some(id) = asking.ids[node] {
            asking.registry.begin_probe(id, now);
            self.after(PROBE / 2, Event::Count { replica, node });
        }
    }

    fn count(&mut self, replica: usize, node: usize) {
        let queue = self.nodes[node].queue(self.now);
        let lies = node == 0 && self.scenario.oddity == Some(Oddity::Liar);
        let pending = match node < self.scenario.nodes {
            // The node reports 100 more jobs each second.
            false => self.now.as_secs() * 100,
            true if lies => 0,
            true => queue as u64,
        };
        let report = Event::Report { replica, node, pending };
        self.after(PROBE / 2, report);
    }

    fn report(&mut self, replica: usize, node: usize, pending: u64) {
        let now = self.instant();
        let Replica {
            registry,
            ids,
            is_known,
        } = &mut self.replicas[replica];
        if let Some(id) = ids[node] {
            let running = |id| Running {
                id: ContainerId::parse(id).expect("a container id"),
                description: None,
                image: None,
            };
            let all = [running(CONTAINER), running(RIVAL)];
            registry.up(id, &all[..if node == 0 { 2 } else { 1 }], pending, now);
            is_known[node] = true;
        }
    }

    fn join(&mut self) {
        self.list(self.nodes.len() - 1);
        self.joined = Some(self.now);
        self.after(self.scenario.interval * (INTERVALS_PER_JOIN / 2), Event::Leave);
    }

    fn leave(&mut self) {
        let at = self.nodes.len() - 1;
        self.nodes[at].is_listed = false;
        for replica in &mut self.replicas {
            if let Some(id) = replica.ids[at].take() {
                replica.registry.remove(id);
            }
            replica.is_known[at] = false;
        }
        self.after(self.scenario.interval * (INTERVALS_PER_JOIN / 2), Event::Join);
    }

    /// Returns whether an arrival at this time is measured.
    fn counts(&self) -> bool {
        let is_recent = |joined| self.now - joined < self.scenario.interval;
        let is_wanted = self.scenario.oddity != Some(Oddity::Joins) || self.joined.is_some_and(is_recent);
        self.now > WARM_UP && is_wanted
    }
}

fn index_of(addr: &NodeAddr) -> Option<usize> {
    match addr.socket_addr()?.ip() {
        IpAddr::V4(ip) => Some((ip.to_bits() & 0x00FF_FFFF) as usize),
        IpAddr::V6(_) => None,
    }
}

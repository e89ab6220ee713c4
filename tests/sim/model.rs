//! The model: nodes that take one job at a time, first come first served; exponential jobs and arrivals; clients that
//! ask the router and send the job to the first address; probes as the poller sends them. Time is simulated.
//!
//! "Ours" and "counts only" are the router's own registry, asked and told as the workers and the poller do. A seed fixes
//! all the rest, the same requests for each policy; which of equal nodes the registry puts first it draws for itself.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use infernet_router::client::Client;
use infernet_router::node::{ContainerId, NodeAddr, Rank, Running};
use infernet_router::registry::{NodeId, Page, PromisePolicy, Purpose, Registry};

use crate::random::Random;

/// Mean length of a job on a node of speed 1.
pub const JOB: Duration = Duration::from_secs(2);
/// From a probe's start to its report; the node counts its jobs half-way.
const PROBE: Duration = Duration::from_millis(50);
/// The part of a run that fills the queues and is not measured.
const WARM_UP: f64 = 0.1;
/// Where one node comes and goes: it is listed anew with every so many intervals, for half of that time.
const INTERVALS_PER_JOIN: u32 = 8;
const CONTAINER: &str = "job";

/// Who chooses the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The shortest queue at the moment of the request.
    Perfect,
    /// The registry with `PROMISES=on`.
    Ours,
    /// The registry with `PROMISES=off`.
    CountsOnly,
    Random,
    /// The less busy of two random nodes by the last counts.
    TwoChoices,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Each request comes from another client.
    Others,
    /// So many clients ask equally often.
    Equal(usize),
    /// One of so many makes half of all requests.
    OneMakesHalf(usize),
    /// All of them are in one IPv4 /24.
    OneSubnet,
}

/// One situation.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub nodes: usize,
    /// Work that arrives, as a part of what the nodes can do.
    pub load: f64,
    pub interval: Duration,
    /// The part of an interval that a round takes.
    pub round_share: f64,
    pub clients: Clients,
    /// The part of the answers that is used.
    pub used: f64,
    /// The part of the jobs that goes to random nodes, past the router.
    pub bypassing: f64,
    /// How many times as fast the faster half of the nodes is.
    pub speed_ratio: f64,
    /// One node comes and goes between rounds; what arrives in the interval after it came is measured.
    pub joins: bool,
}

impl Scenario {
    pub fn new(nodes: usize, load: f64, interval_seconds: u64) -> Self {
        Self {
            nodes,
            load,
            interval: Duration::from_secs(interval_seconds),
            round_share: 0.1,
            clients: Clients::Others,
            used: 1.0,
            bypassing: 0.0,
            speed_ratio: 1.0,
            joins: false,
        }
    }
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub mean_seconds: f64,
    pub p99_seconds: f64,
    pub worst_queue: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Round,
    Probe(usize),
    Count { node: usize, probe: u32 },
    Report { node: usize, probe: u32, pending: u64 },
    Join,
    Leave,
}

struct Node {
    addr: NodeAddr,
    speed: f64,
    /// When each of its jobs ends, in the order of the queue.
    ends: VecDeque<Duration>,
    /// Present while it is listed.
    id: Option<NodeId>,
    /// Jobs at the last probe, the running one too, as infernet-node counts them.
    pending: Option<u64>,
}

impl Node {
    fn queue(&mut self, now: Duration) -> usize {
        while self.ends.front().is_some_and(|end| *end <= now) {
            self.ends.pop_front();
        }
        self.ends.len()
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    registry: Registry,
    nodes: Vec<Node>,
    running: Vec<Running>,
    began: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    /// What arrives when; the same for each policy.
    requests: Random,
    choices: Random,
    joined: Option<Duration>,
    responses: Vec<f64>,
    worst_queue: usize,
}

/// Runs a scenario until so many jobs have arrived.
pub fn run(scenario: &Scenario, policy: Policy, jobs: usize, seed: u64) -> Measured {
    let mut run = Run::new(scenario, policy, seed);
    let warm_up = (jobs as f64 * WARM_UP) as usize;
    let mut arrived = 0;
    while arrived < jobs {
        let Some(Reverse((now, event))) = run.events.pop() else {
            break;
        };
        run.now = now;
        match event {
            Event::Arrival => {
                if let Some(response) = run.arrival() {
                    arrived += 1;
                    if arrived > warm_up && run.counts() {
                        run.responses.push(response.as_secs_f64());
                    }
                }
            }
            Event::Round => run.begin_round(),
            Event::Probe(node) => run.probe(node),
            Event::Count { node, probe } => run.count(node, probe),
            Event::Report { node, probe, pending } => run.report(node, probe, pending),
            Event::Join => run.join(),
            Event::Leave => run.leave(),
        }
    }
    run.measured()
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, policy: Policy, seed: u64) -> Self {
        let promises = match policy {
            Policy::CountsOnly => PromisePolicy::Off,
            _ => PromisePolicy::On {
                weight: 1,
                max_speedup: None,
            },
        };
        let running = Running {
            id: ContainerId::parse(CONTAINER).expect("a container id"),
            description: None,
            image: None,
        };
        #[expect(clippy::disallowed_methods, reason = "where simulated time begins")]
        let began = Instant::now();
        let mut run = Self {
            scenario,
            policy,
            registry: Registry::new(promises, scenario.interval, began),
            began,
            nodes: Vec::new(),
            running: vec![running],
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            requests: Random::new(seed, 1),
            choices: Random::new(seed, 2),
            joined: None,
            responses: Vec::new(),
            worst_queue: 0,
        };
        (0..scenario.nodes).for_each(|at| run.add_node(at));
        run.after(scenario.interval, Event::Round);
        run.after(PROBE, Event::Arrival);
        if scenario.joins {
            run.after(scenario.interval.mul_f64(1.5), Event::Leave);
        }
        run
    }

    /// Like the poller with a first list: asked at once.
    fn add_node(&mut self, at: usize) {
        let ip = Ipv4Addr::from_bits(0x0A00_0000 | at as u32);
        let addr = NodeAddr::from_socket(SocketAddr::new(IpAddr::V4(ip), 4_000));
        let id = self.registry.insert(addr.clone(), Rank::Listed(at as u32));
        // Both halves together are as fast as if all nodes had speed 1.
        let slow = 2.0 / (1.0 + self.scenario.speed_ratio);
        let is_fast = at.is_multiple_of(2);
        self.nodes.push(Node {
            addr,
            speed: if is_fast {
                slow * self.scenario.speed_ratio
            } else {
                slow
            },
            ends: VecDeque::new(),
            id: Some(id),
            pending: None,
        });
        self.after(Duration::ZERO, Event::Probe(at));
    }

    fn instant(&self) -> Instant {
        self.began + self.now
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.events.push(Reverse((self.now + delay, event)));
    }

    /// A request; the job's response time if there was a job.
    fn arrival(&mut self) -> Option<Duration> {
        let Scenario { nodes, load, used, .. } = *self.scenario;
        let between = JOB.div_f64(nodes as f64 * load / used);
        let gap = self.requests.exponential(between);
        self.after(gap, Event::Arrival);
        let client = self.client();
        let job = self.requests.exponential(JOB);
        let is_used = self.requests.share() < used;
        let bypasses = self.requests.share() < self.scenario.bypassing;
        let chosen = if bypasses { self.any() } else { self.choose(client) };
        let chosen = chosen.filter(|_| is_used)?;
        let now = self.now;
        let node = &mut self.nodes[chosen];
        let queue = node.queue(now);
        let begin = node.ends.back().copied().unwrap_or(now);
        let end = begin + job.div_f64(node.speed);
        node.ends.push_back(end);
        self.worst_queue = self.worst_queue.max(queue + 1);
        Some(end - now)
    }

    fn client(&mut self) -> Client {
        let random = &mut self.requests;
        // Clients are spread over the address space, so that subnets hardly ever meet.
        let spread = |number: usize| Client::V4((number as u32 + 1).wrapping_mul(0x9E37_79B1));
        match self.scenario.clients {
            Clients::Others => Client::V4(random.next() as u32),
            Clients::Equal(clients) => spread(random.below(clients)),
            Clients::OneMakesHalf(clients) => match random.share() < 0.5 {
                true => spread(0),
                false => spread(1 + random.below(clients - 1)),
            },
            Clients::OneSubnet => Client::V4(0x0909_0900 | random.next() as u32 & 0xFF),
        }
    }

    fn choose(&mut self, client: Client) -> Option<usize> {
        match self.policy {
            Policy::Ours | Policy::CountsOnly => {
                let page = Page { n: 1, offset: 0 };
                let answer =
                    self.registry
                        .answer([CONTAINER].into_iter(), page, client, Purpose::Route, self.instant());
                answer.first().and_then(index_of)
            }
            Policy::Random => self.any(),
            Policy::TwoChoices => {
                let (one, other) = (self.any()?, self.any()?);
                let is_busier = self.nodes[one].pending > self.nodes[other].pending;
                Some(if is_busier { other } else { one })
            }
            Policy::Perfect => {
                let (now, choices) = (self.now, &mut self.choices);
                let known = self.nodes.iter_mut().enumerate();
                known
                    .filter(|(_, node)| node.pending.is_some())
                    .map(|(at, node)| (node.queue(now), choices.next(), at))
                    .min()
                    .map(|(.., at)| at)
            }
        }
    }

    /// One of the nodes that the router knows to be up.
    fn any(&mut self) -> Option<usize> {
        let is_last_known = self.nodes.last()?.pending.is_some();
        let known = self.nodes.len() - usize::from(!is_last_known);
        Some(self.choices.below(known))
    }

    fn begin_round(&mut self) {
        self.registry.begin_round();
        let interval = self.scenario.interval;
        let spacing = interval
            .mul_f64(self.scenario.round_share)
            .div_f64(self.nodes.len() as f64);
        for at in 0..self.nodes.len() {
            self.after(spacing.mul_f64(at as f64), Event::Probe(at));
        }
        self.after(interval, Event::Round);
    }

    fn probe(&mut self, node: usize) {
        if let Some(id) = self.nodes[node].id {
            let probe = self.registry.begin_probe(id, self.instant());
            self.after(PROBE / 2, Event::Count { node, probe });
        }
    }

    fn count(&mut self, node: usize, probe: u32) {
        let pending = self.nodes[node].queue(self.now) as u64;
        self.after(PROBE / 2, Event::Report { node, probe, pending });
    }

    fn report(&mut self, node: usize, probe: u32, pending: u64) {
        if let Some(id) = self.nodes[node].id {
            self.registry.up(id, probe, &self.running, pending, self.instant());
            self.nodes[node].pending = Some(pending);
        }
    }

    fn join(&mut self) {
        let at = self.nodes.len() - 1;
        let node = &mut self.nodes[at];
        node.id = Some(self.registry.insert(node.addr.clone(), Rank::Listed(at as u32)));
        self.joined = Some(self.now);
        self.after(Duration::ZERO, Event::Probe(at));
        self.after(self.scenario.interval * (INTERVALS_PER_JOIN / 2), Event::Leave);
    }

    fn leave(&mut self) {
        if let Some(node) = self.nodes.last_mut() {
            node.id.take().into_iter().for_each(|id| self.registry.remove(id));
            node.pending = None;
        }
        self.after(self.scenario.interval * (INTERVALS_PER_JOIN / 2), Event::Join);
    }

    /// Whether what arrives now is measured.
    fn counts(&self) -> bool {
        let is_recent = |joined| self.now - joined < self.scenario.interval;
        !self.scenario.joins || self.joined.is_some_and(is_recent)
    }

    fn measured(mut self) -> Measured {
        let count = self.responses.len();
        let at_p99 = (count as f64 * 0.99) as usize;
        let (_, p99, _) = self.responses.select_nth_unstable_by(at_p99, f64::total_cmp);
        let p99_seconds = *p99;
        Measured {
            mean_seconds: self.responses.iter().sum::<f64>() / count as f64,
            p99_seconds,
            worst_queue: self.worst_queue as f64,
        }
    }
}

fn index_of(addr: &NodeAddr) -> Option<usize> {
    match addr.socket_addr()?.ip() {
        IpAddr::V4(ip) => Some((ip.to_bits() & 0x00FF_FFFF) as usize),
        IpAddr::V6(_) => None,
    }
}

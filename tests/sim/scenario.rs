//! The simulated scenarios and their expected results.

use std::time::Duration;

/// The middle two thirds of the nodes are within a factor of 3.3.
const SIGMA: f64 = 0.6;

/// Clients of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Each request comes from another client.
    Others,
    /// This many clients send requests equally often.
    Equal(usize),
    /// All clients are in this many IPv4 /24.
    Subnets(u32),
}

/// Relative speeds of nodes. Their mean is 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speeds {
    Equal,
    /// Every second node is faster by this factor.
    Half(f64),
    /// The logarithms have a normal distribution with standard deviation `SIGMA`.
    Lognormal,
    /// This many first nodes are faster than the others by this factor.
    First(usize, f64),
}

/// Unusual behaviour of node 0 or of the last node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The last node joins and leaves. Only arrivals in the interval after a join are measured.
    Joins,
    /// Node 0 becomes four times slower after half of the jobs.
    SlowsDown,
    /// Jobs of node 0 fail immediately.
    Dead,
    /// Node 0 always reports zero jobs.
    Liar,
    /// One subnet gets promises on node 0 as often as jobs arrive, and sends no job.
    Painted,
    /// One subnet gets 1,000 promises on node 0 in each interval, and sends no job.
    Attacked,
    /// This many Explorer nodes with ever-rising pending counts are added.
    Rising(usize),
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub nodes: usize,
    /// Arriving work as a fraction of the capacity of the nodes.
    pub load: f64,
    pub interval: Duration,
    /// Mean length of a job on a node of speed 1.
    pub job: Duration,
    /// Number of concurrent jobs of a node.
    pub in_parallel: usize,
    /// Fraction of an interval that a round takes.
    pub round_share: f64,
    pub clients: Clients,
    pub replicas: usize,
    /// Fraction of the responses that clients use.
    pub used: f64,
    /// Fraction of the jobs that bypass the router to random nodes.
    pub bypassing: f64,
    pub speeds: Speeds,
    pub max_speedup: Option<f64>,
    pub oddity: Option<Oddity>,
}

impl Scenario {
    pub fn new(nodes: usize, load: f64) -> Self {
        Self {
            nodes,
            load,
            interval: Duration::from_secs(30),
            job: Duration::from_secs(2),
            in_parallel: 1,
            round_share: 1.0,
            clients: Clients::Others,
            replicas: 1,
            used: 1.0,
            bypassing: 0.0,
            speeds: Speeds::Equal,
            max_speedup: None,
            oddity: None,
        }
    }

    /// Returns the mean time between two jobs.
    pub fn between_jobs(&self) -> Duration {
        self.job.div_f64((self.nodes * self.in_parallel) as f64 * self.load)
    }

    /// Returns the speed of each node.
    pub fn speeds(&self) -> Vec<f64> {
        let relative = |node: usize| match self.speeds {
            Speeds::Equal => 1.0,
            Speeds::Half(times) if node.is_multiple_of(2) => times,
            Speeds::First(count, times) if node < count => times,
            Speeds::Half(_) | Speeds::First(..) => 1.0,
            Speeds::Lognormal => (SIGMA * normal_quantile((node as f64 + 0.5) / self.nodes as f64)).exp(),
        };
        let relative: Vec<f64> = (0..self.nodes).map(relative).collect();
        let mean = relative.iter().sum::<f64>() / self.nodes as f64;
        relative.iter().map(|speed| speed / mean).collect()
    }
}

/// Returns the quantile of the normal distribution by Hastings' approximation (Abramowitz and Stegun 26.2.23), with an
/// error below 0.00045.
fn normal_quantile(probability: f64) -> f64 {
    let tail = probability.min(1.0 - probability);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = (0.010_328 * t + 0.802_853) * t + 2.515_517;
    let below = ((0.001_308 * t + 0.189_269) * t + 1.432_788) * t + 1.0;
    let quantile = t - above / below;
    if probability < 0.5 { -quantile } else { quantile }
}

/// A scenario with its name and known mean responses, as multiples of perfect knowledge: `found` when the rule was
/// chosen, `before` with the rule before it, pending jobs plus promises. `None` if unknown.
pub struct Case {
    pub name: &'static str,
    pub scenario: Scenario,
    pub found: Option<f64>,
    pub before: Option<f64>,
}

fn case(name: &'static str, scenario: Scenario, found: Option<f64>, before: Option<f64>) -> Case {
    Case {
        name,
        scenario,
        found,
        before,
    }
}

/// Returns all scenarios with a measured mean response.
pub fn cases() -> Vec<Case> {
    let plain = Scenario::new(10, 0.7);
    let half = |nodes, load| Scenario {
        speeds: Speeds::Half(4.0),
        ..Scenario::new(nodes, load)
    };
    let uneven = half(10, 0.7);
    let two_of_twenty = Scenario {
        speeds: Speeds::First(2, 10.0),
        ..Scenario::new(20, 0.7)
    };
    let one_of_ten = Scenario {
        speeds: Speeds::First(1, 4.0),
        ..plain
    };
    let speedup = Some(8.0);
    let every = |seconds| Duration::from_secs(seconds);
    let job = |job| Scenario { job, ..plain };
    let odd = |oddity| Scenario {
        oddity: Some(oddity),
        ..plain
    };
    let of = |clients| Scenario { clients, ..plain };
    let replicas = |replicas, scenario| Scenario { replicas, ..scenario };
    let interval = |seconds| Scenario {
        interval: every(seconds),
        ..plain
    };
    let used = |scenario| Scenario { used: 0.25, ..scenario };
    vec![
        case("load 0.3", Scenario::new(10, 0.3), Some(1.06), Some(1.08)),
        case("load 0.7", plain, Some(1.60), Some(1.64)),
        case("load 0.9", Scenario::new(10, 0.9), Some(1.93), Some(1.95)),
        case("100 nodes, load 0.3", Scenario::new(100, 0.3), None, None),
        case("100 nodes", Scenario::new(100, 0.7), None, Some(1.75)),
        case("100 nodes, load 0.9", Scenario::new(100, 0.9), None, Some(3.15)),
        case("half 4 times faster, load 0.3", half(10, 0.3), Some(1.6), Some(3.3)),
        case("half 4 times faster", uneven, Some(1.4), Some(5.8)),
        case("half 4 times faster, load 0.9", half(10, 0.9), Some(1.5), Some(4.6)),
        case("the same, 100 nodes, load 0.3", half(100, 0.3), None, None),
        case("the same, 100 nodes", half(100, 0.7), Some(2.2), Some(9.9)),
        case("the same, 100 nodes, load 0.9", half(100, 0.9), None, None),
        case(
            "lognormal speeds",
            Scenario {
                speeds: Speeds::Lognormal,
                ..plain
            },
            Some(2.0),
            Some(6.4),
        ),
        case(
            "one 10 times slower",
            Scenario {
                speeds: Speeds::First(1, 0.1),
                ..plain
            },
            Some(1.6),
            Some(2.9),
        ),
        case("one becomes 4 times slower", odd(Oddity::SlowsDown), None, None),
        case("2 of 20 10 times faster", two_of_twenty, Some(19.0), None),
        case(
            "the same, `MAX_SPEEDUP=8`",
            Scenario {
                max_speedup: speedup,
                ..two_of_twenty
            },
            Some(2.0),
            None,
        ),
        case("1 of 10 4 times faster", one_of_ten, Some(2.95), None),
        case(
            "the same, `MAX_SPEEDUP=8`",
            Scenario {
                max_speedup: speedup,
                ..one_of_ten
            },
            Some(1.6),
            None,
        ),
        case("3 clients", of(Clients::Equal(3)), Some(1.60), Some(2.36)),
        case("10 clients", of(Clients::Equal(10)), None, Some(2.16)),
        case("all clients in one /24", of(Clients::Subnets(1)), None, None),
        case(
            "half 4 times faster, 3 clients",
            Scenario {
                clients: Clients::Equal(3),
                ..uneven
            },
            None,
            None,
        ),
        case("2 replicas", replicas(2, plain), Some(1.71), Some(1.65)),
        case(
            "2 replicas, load 0.9",
            replicas(2, Scenario::new(10, 0.9)),
            Some(1.98),
            Some(1.83),
        ),
        case("4 replicas", replicas(4, plain), None, None),
        case(
            "half 4 times faster, 4 replicas",
            replicas(4, uneven),
            Some(1.9),
            Some(3.1),
        ),
        case(
            "a round within a tenth of the interval",
            Scenario {
                round_share: 0.1,
                ..plain
            },
            Some(1.60),
            Some(1.64),
        ),
        case("a quarter of the answers used", used(plain), None, Some(2.38)),
        case(
            "half 4 times faster, a quarter used",
            used(uneven),
            Some(2.1),
            Some(22.0),
        ),
        case(
            "half of the jobs bypass the router",
            Scenario {
                bypassing: 0.5,
                ..plain
            },
            None,
            Some(1.51),
        ),
        case("jobs of 0.2 s", job(Duration::from_millis(200)), None, None),
        case("jobs of 60 s", job(every(60)), None, None),
        case(
            "8 concurrent jobs per node",
            Scenario {
                in_parallel: 8,
                ..plain
            },
            None,
            None,
        ),
        case("a node was added", odd(Oddity::Joins), None, Some(1.89)),
        case("one always reports 0", odd(Oddity::Liar), None, None),
        case("one is painted busy by a /24", odd(Oddity::Painted), None, None),
        case("interval 10 s", interval(10), Some(1.45), None),
        case("interval 5 s", interval(5), Some(1.32), Some(1.34)),
        case("interval 2 s", interval(2), Some(1.16), None),
    ]
}

/// A fleet with its name, and the mean response in seconds for each variant as documented in routing.md.
pub struct Fleet<const N: usize> {
    pub name: &'static str,
    pub scenarios: [Scenario; N],
    pub expected: [f64; N],
}

fn even() -> Scenario {
    Scenario::new(10, 0.7)
}

/// Jobs take 0.5 s on the fast nodes and 2 s on the others.
fn half_faster() -> Scenario {
    Scenario {
        speeds: Speeds::Half(4.0),
        job: Duration::from_millis(800),
        ..Scenario::new(10, 0.7)
    }
}

/// Returns fleets with requests of 400, one, two and three subnets, and of 400 during an attack of another subnet.
pub fn subnets() -> [Fleet<5>; 3] {
    let variants = |scenario: Scenario| {
        let of = |subnets| Scenario {
            clients: Clients::Subnets(subnets),
            ..scenario
        };
        let attack = Scenario {
            oddity: Some(Oddity::Attacked),
            ..of(400)
        };
        [of(400), of(1), of(2), of(3), attack]
    };
    let three = Scenario {
        job: Duration::from_millis(200),
        ..Scenario::new(3, 0.67)
    };
    [
        ("10 even nodes", even(), [3.78, 3.69, 3.72, 3.82, 4.26]),
        ("half 4 times faster", half_faster(), [1.41, 1.42, 1.42, 1.45, 1.77]),
        (
            "3 nodes, jobs of 0.2 s, load 0.67",
            three,
            [0.43, 0.46, 0.43, 0.44, 0.88],
        ),
    ]
    .map(|(name, scenario, expected)| Fleet {
        name,
        scenarios: variants(scenario),
        expected,
    })
}

/// Returns fleets without, with one and with three misreporting Explorer nodes.
pub fn lying() -> [Fleet<3>; 4] {
    let variants = |scenario: Scenario| {
        [None, Some(Oddity::Rising(1)), Some(Oddity::Rising(3))].map(|oddity| Scenario { oddity, ..scenario })
    };
    // Jobs take 0.25 s on the fast nodes and 2 s on the others.
    let two_slow = Scenario {
        speeds: Speeds::First(2, 0.125),
        job: Duration::from_millis(353),
        ..Scenario::new(6, 0.7)
    };
    let lognormal = Scenario {
        speeds: Speeds::Lognormal,
        ..even()
    };
    [
        ("half 4 times faster", half_faster(), [1.43, 1.49, 1.51]),
        ("4 fast nodes, 2 8 times slower", two_slow, [0.52, 0.53, 0.60]),
        ("lognormal speeds", lognormal, [5.3, 5.4, 5.4]),
        ("10 even nodes", even(), [3.70, 3.70, 3.70]),
    ]
    .map(|(name, scenario, expected)| Fleet {
        name,
        scenarios: variants(scenario),
        expected,
    })
}

/// Returns scenarios with one dead node, and the share of jobs that it received when the rule was chosen.
pub fn dead() -> [(Scenario, f64); 2] {
    [(3, 0.37), (10, 0.11)].map(|(nodes, share)| {
        let scenario = Scenario {
            oddity: Some(Oddity::Dead),
            ..Scenario::new(nodes, 0.7)
        };
        (scenario, share)
    })
}

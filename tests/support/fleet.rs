//! A stand-in fleet: up to 100,000 nodes on one listener and one thread, each told what to do.
//!
//! All of 127.0.0.0/8 is loopback, so the local address of an accepted connection says which node is
//! asked.

mod event_loop;
mod plan;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(super) use plan::up;
use plan::{Node, Plan, Shared, State, bound, port_of};

/// The address of node 0; the others follow it.
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// The most nodes one fleet stands for.
const MAX_NODES: usize = 100_000;

/// What a node does when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// A healthy node with that many pending off-chain jobs.
    Up { pending: u64, containers: Vec<String> },
    /// Status 200, as JSON, with any body.
    Body(Vec<u8>),
    /// That status, with a JSON error as its body.
    Status(u16),
    /// Any status, type and body.
    Answer {
        status: u16,
        content_type: &'static str,
        body: Vec<u8>,
    },
    /// These bytes for an answer, then the connection is closed.
    Raw(Vec<u8>),
    /// Takes the request and never answers.
    Hang,
    /// Sends a head that promises a body, and no body.
    HangAfterHead,
    /// Sends a head, then a byte of the body each 100 ms, forever.
    Drip,
    /// Sends a byte of the head each 100 ms, forever.
    DripHead,
    /// Answers after that time, as it did when it was last `Up`.
    Slow(Duration),
    /// Keeps the request; when the node is told to do something else, it is answered so.
    Wait,
    /// A body that never ends, as fast as it is read.
    Endless,
    /// A head that never ends, as fast as it is read.
    EndlessHead,
    /// Resets the connection when it is asked.
    Reset,
    /// 302 to that location, whatever the target.
    Redirect(String),
    /// 302 to that location so many times, whatever the target, then as it was when last `Up`, and so on.
    RedirectTimes(u32, String),
    /// 100 (Continue) again and again, as fast as it is read.
    EndlessContinue,
    /// 500 for the 1st, 3rd, 5th request since it was set; otherwise as it was when last `Up`.
    FailEveryOther,
    /// Closes the connection when it is asked, without a byte.
    CloseAtOnce,
}

impl Behaviour {
    pub fn up(pending: u64, containers: &[&str]) -> Self {
        let containers = containers.iter().map(|&id| id.to_owned()).collect();
        Self::Up { pending, containers }
    }
}

/// Stand-in nodes that live until this is dropped.
pub struct Fleet {
    shared: Arc<Shared>,
    port: u16,
    /// Keeps the port ours while the fleet refuses connections.
    _reserve: OwnedFd,
    /// Bound and never listening: its port refuses connections, and nobody else can take it.
    refusing: OwnedFd,
    event_loop: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts `nodes` nodes that are up, with nothing pending and the container `hello-world`.
    pub fn start(nodes: usize) -> Self {
        Self::serve(FIRST_NODE, nodes, |target| target == "/info")
    }

    /// Starts nodes that respond below the path `/node-7` only.
    pub fn below_path(nodes: usize) -> Self {
        Self::serve(FIRST_NODE, nodes, |target| target == "/node-7/info")
    }

    /// One node on 127.0.0.1, for host names.
    pub fn on_localhost() -> Self {
        Self::serve(Ipv4Addr::LOCALHOST, 1, |target| target == "/info")
    }

    /// Starts a fleet of any address that answers 404 to what is not among its targets.
    pub(super) fn serve(first: Ipv4Addr, nodes: usize, serves: fn(&str) -> bool) -> Self {
        assert!(nodes <= MAX_NODES, "a fleet has at most {MAX_NODES} nodes");
        raise_descriptor_limit();
        let reserve = bound(0);
        let port = port_of(&reserve);
        let plan = Arc::new(Plan::of(&Behaviour::up(0, &["hello-world"]), &Arc::default()));
        let shared = Arc::new(Shared::new(first, serves, vec![Node::new(plan); nodes]));
        let for_loop = Arc::clone(&shared);
        let event_loop = std::thread::Builder::new()
            .name("fleet".into())
            .spawn(move || event_loop::run(&for_loop, port))
            .expect("a thread is available");
        let fleet = Self {
            shared,
            port,
            _reserve: reserve,
            refusing: bound(0),
            event_loop: Some(event_loop),
        };
        fleet.listen();
        fleet
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn len(&self) -> usize {
        self.state().nodes.len()
    }

    /// The address of a node.
    pub fn addr(&self, node: usize) -> SocketAddr {
        self.with_port(node, self.port)
    }

    /// An address of that node where nothing listens.
    pub fn refusing_addr(&self, node: usize) -> SocketAddr {
        self.with_port(node, port_of(&self.refusing))
    }

    /// The text of an ips.txt that names all nodes.
    pub fn list(&self) -> String {
        self.list_of(0..self.len())
    }

    /// The text of an ips.txt that names some nodes.
    pub fn list_of(&self, nodes: Range<usize>) -> String {
        nodes.map(|node| format!("{}\n", self.addr(node))).collect()
    }

    /// From the next request on, the node does that.
    pub fn set(&self, node: usize, behaviour: Behaviour) {
        self.set_range(node..node + 1, behaviour);
    }

    pub fn set_all(&self, behaviour: Behaviour) {
        self.set_range(0..self.len(), behaviour);
    }

    /// The answer is prepared once and shared by all of them.
    pub fn set_range(&self, nodes: Range<usize>, behaviour: Behaviour) {
        let mut state = self.state();
        let mut plans: HashMap<*const u8, Arc<Plan>> = HashMap::new();
        for node in &mut state.nodes[nodes] {
            let last_up = &node.plan.last_up;
            let plan = plans
                .entry(last_up.as_ptr())
                .or_insert_with(|| Arc::new(Plan::of(&behaviour, last_up)));
            node.follow(Arc::clone(plan));
        }
        drop(state);
        self.shared.wake();
    }

    /// Gives each node a behaviour of its own.
    pub fn set_each(&self, behaviour_of: impl Fn(usize) -> Behaviour) {
        let mut state = self.state();
        for (i, node) in state.nodes.iter_mut().enumerate() {
            node.follow(Arc::new(Plan::of(&behaviour_of(i), &node.plan.last_up)));
        }
        drop(state);
        self.shared.wake();
    }

    /// What these nodes answer to `/resources`, without and with a `model_id`; before that it is 404. None of these
    /// requests counts in `asked` and its like.
    pub fn set_resources(&self, nodes: Range<usize>, plain: &Behaviour, support: &Behaviour) {
        let plans = [plain, support].map(|behaviour| Arc::new(Plan::of(behaviour, &Arc::default())));
        for node in &mut self.state().nodes[nodes] {
            node.resources = Some(plans.clone());
        }
        self.shared.wake();
    }

    /// Requests of `/resources` so far: node, target and time, in order.
    pub fn resource_asks(&self) -> Vec<(usize, String, Instant)> {
        self.state().resource_asks.clone()
    }

    /// The whole fleet refuses connections, from when this returns until `listen`.
    pub fn refuse(&self) {
        self.set_listening(false);
    }

    pub fn listen(&self) {
        self.set_listening(true);
    }

    /// How many requests that node was sent.
    pub fn asked(&self, node: usize) -> u64 {
        self.state().nodes[node].asked.into()
    }

    /// How many requests each node was sent.
    pub fn asked_each(&self) -> Vec<u64> {
        self.state().nodes.iter().map(|n| n.asked.into()).collect()
    }

    /// How many requests all nodes were sent.
    pub fn asked_total(&self) -> u64 {
        self.state().asked
    }

    /// Records who is asked when, from now on; what was recorded is forgotten.
    pub fn record(&self) {
        self.state().record = Some(Vec::new());
    }

    /// When that node was asked, since `record`.
    pub fn asks(&self, node: usize) -> Vec<Instant> {
        let of_node = |(n, at)| (n == node).then_some(at);
        self.recorded().into_iter().filter_map(of_node).collect()
    }

    /// Who was asked when, in order, since `record`.
    pub fn recorded(&self) -> Vec<(usize, Instant)> {
        let state = self.state();
        let record = state.record.as_ref().expect("`record` was called before");
        record.iter().map(|&(n, at)| (n as usize, at)).collect()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.state().open
    }

    /// The most connections that were open at once since the start or `forget_most_open`.
    pub fn most_open(&self) -> usize {
        self.state().most_open
    }

    pub fn forget_most_open(&self) {
        let mut state = self.state();
        state.most_open = state.open;
    }

    /// Connections taken so far, with or without a request.
    pub fn accepted(&self) -> u64 {
        self.state().accepted
    }

    /// The head of the last request, as it came.
    pub fn last_head(&self) -> String {
        String::from_utf8_lossy(&self.state().last_head).into_owned()
    }

    /// Waits until that node was asked so many times in all.
    #[track_caller]
    pub fn wait_asked(&self, node: usize, count: u64, within: Duration) {
        let done = self.wait(within, |state| u64::from(state.nodes[node].asked) >= count);
        let asked = self.asked(node);
        assert!(
            done,
            "node {node} was asked {asked} times within {within:?}, expected {count}"
        );
    }

    /// Waits until the nodes were sent so many requests in all.
    #[track_caller]
    pub fn wait_asked_total(&self, count: u64, within: Duration) {
        let done = self.wait(within, |state| state.asked >= count);
        let asked = self.asked_total();
        assert!(
            done,
            "the fleet was asked {asked} times within {within:?}, expected {count}"
        );
    }

    /// Waits until exactly so many connections are open.
    #[track_caller]
    pub fn wait_open(&self, count: usize, within: Duration) {
        let done = self.wait(within, |state| state.open == count);
        let open = self.open();
        assert!(done, "{open} connections are open after {within:?}, expected {count}");
    }

    fn wait(&self, within: Duration, done: impl Fn(&State) -> bool) -> bool {
        let mut state = self.state();
        state.waiters += 1;
        let (mut state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, within, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner);
        state.waiters -= 1;
        done(&state)
    }

    fn set_listening(&self, listening: bool) {
        self.state().wants_listening = listening;
        self.shared.wake();
        let done = self.wait(super::PATIENCE, |state| state.is_listening == listening);
        assert!(done, "the fleet's event loop has ended");
    }

    fn with_port(&self, node: usize, port: u16) -> SocketAddr {
        let offset = u32::try_from(node).expect("a fleet has at most 100,000 nodes");
        SocketAddr::from((Ipv4Addr::from(self.shared.first + offset), port))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.state().stopping = true;
        self.shared.wake();
        let event_loop = self.event_loop.take().expect("it is joined only here");
        // A second panic while a test unwinds would hide the first.
        assert!(
            event_loop.join().is_ok() || std::thread::panicking(),
            "the fleet's event loop panicked"
        );
    }
}

/// A probe of each node at once needs a descriptor here too. Only the soft limit: what a router
/// started from here inherits is then what its own `ulimit` could give it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused is fine: few tests need many descriptors, and those say so when they run out.
    let _ = setrlimit(Resource::Nofile, raised);
}

//! A stand-in fleet: up to 100,000 nodes on one listener and one thread, each with a separate behaviour.
//!
//! All of 127.0.0.0/8 is loopback, so the local address of an accepted connection identifies the node.

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

/// The address of node 0. The other nodes have the next addresses.
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// Maximum number of nodes of a fleet.
const MAX_NODES: usize = 100_000;

/// Behaviour of a node for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// A healthy node with this number of pending off-chain jobs.
    Up { pending: u64, containers: Vec<String> },
    /// Status 200, as JSON, with any body.
    Body(Vec<u8>),
    /// This status, with a JSON error as its body.
    Status(u16),
    /// Any status, type and body.
    Answer {
        status: u16,
        content_type: &'static str,
        body: Vec<u8>,
    },
    /// Sends these bytes as the response, then closes the connection.
    Raw(Vec<u8>),
    /// Reads the request and never responds.
    Hang,
    /// Sends a header section that announces a body, and no body.
    HangAfterHead,
    /// Sends a header section, then a byte of the body each 100 ms, forever.
    Drip,
    /// Sends a byte of the header section each 100 ms, forever.
    DripHead,
    /// Responds after this time, as when the node was last `Up`.
    Slow(Duration),
    /// Delays the response until the next change of the behaviour, which then applies.
    Wait,
    /// Sends an endless body, as fast as the router reads.
    Endless,
    /// Sends an endless header section, as fast as the router reads.
    EndlessHead,
    /// Resets the connection after the request.
    Reset,
    /// 302 to this location, for any target.
    Redirect(String),
    /// 302 to this location, N times for any target, then one response as when last `Up`, repeatedly.
    RedirectTimes(u32, String),
    /// 100 (Continue) repeatedly, as fast as the router reads.
    EndlessContinue,
    /// 500 for the 1st, 3rd, 5th request with this behaviour, otherwise as when last `Up`.
    FailEveryOther,
    /// Closes the connection after the request, without a response.
    CloseAtOnce,
}

impl Behaviour {
    pub fn up(pending: u64, containers: &[&str]) -> Self {
        let containers = containers.iter().map(|&id| id.to_owned()).collect();
        Self::Up { pending, containers }
    }
}

/// Stand-in nodes that run until the fleet is dropped.
pub struct Fleet {
    shared: Arc<Shared>,
    port: u16,
    /// Reserves the port while the fleet refuses connections.
    _reserve: OwnedFd,
    /// Bound and never listening: its port refuses connections, and no other process can bind it.
    refusing: OwnedFd,
    event_loop: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts `nodes` healthy nodes with no pending job and the container `hello-world`.
    pub fn start(nodes: usize) -> Self {
        Self::serve(FIRST_NODE, nodes, |target| target == "/info")
    }

    /// Starts nodes that respond below the path `/node-7` only.
    pub fn below_path(nodes: usize) -> Self {
        Self::serve(FIRST_NODE, nodes, |target| target == "/node-7/info")
    }

    /// Starts one node on 127.0.0.1, for host names.
    pub fn on_localhost() -> Self {
        Self::serve(Ipv4Addr::LOCALHOST, 1, |target| target == "/info")
    }

    /// Starts a fleet on any address that responds 404 to other targets than its own.
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

    /// Returns the address of a node.
    pub fn addr(&self, node: usize) -> SocketAddr {
        self.with_port(node, self.port)
    }

    /// Returns an address of the node that refuses connections.
    pub fn refusing_addr(&self, node: usize) -> SocketAddr {
        self.with_port(node, port_of(&self.refusing))
    }

    /// Returns an ips.txt with all nodes.
    pub fn list(&self) -> String {
        self.list_of(0..self.len())
    }

    /// Returns an ips.txt with some nodes.
    pub fn list_of(&self, nodes: Range<usize>) -> String {
        nodes.map(|node| format!("{}\n", self.addr(node))).collect()
    }

    /// Sets the behaviour of a node from the next request on.
    pub fn set(&self, node: usize, behaviour: Behaviour) {
        self.set_range(node..node + 1, behaviour);
    }

    pub fn set_all(&self, behaviour: Behaviour) {
        self.set_range(0..self.len(), behaviour);
    }

    /// Sets the behaviour of a range of nodes. They share one prepared response.
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

    /// Sets a separate behaviour for each node.
    pub fn set_each(&self, behaviour_of: impl Fn(usize) -> Behaviour) {
        let mut state = self.state();
        for (i, node) in state.nodes.iter_mut().enumerate() {
            node.follow(Arc::new(Plan::of(&behaviour_of(i), &node.plan.last_up)));
        }
        drop(state);
        self.shared.wake();
    }

    /// Sets the responses of these nodes to `/resources`, without and with a `model_id`. The default is 404. `asked`
    /// and similar counts do not include these requests.
    pub fn set_resources(&self, nodes: Range<usize>, plain: &Behaviour, support: &Behaviour) {
        let plans = [plain, support].map(|behaviour| Arc::new(Plan::of(behaviour, &Arc::default())));
        for node in &mut self.state().nodes[nodes] {
            node.resources = Some(plans.clone());
        }
        self.shared.wake();
    }

    /// Returns the requests of `/resources` so far: node, target and time, in order.
    pub fn resource_asks(&self) -> Vec<(usize, String, Instant)> {
        self.state().resource_asks.clone()
    }

    /// Makes the whole fleet refuse connections until `listen`.
    pub fn refuse(&self) {
        self.set_listening(false);
    }

    pub fn listen(&self) {
        self.set_listening(true);
    }

    /// Returns the number of requests to a node.
    pub fn asked(&self, node: usize) -> u64 {
        self.state().nodes[node].asked.into()
    }

    /// Returns the number of requests to each node.
    pub fn asked_each(&self) -> Vec<u64> {
        self.state().nodes.iter().map(|n| n.asked.into()).collect()
    }

    /// Returns the number of requests to all nodes.
    pub fn asked_total(&self) -> u64 {
        self.state().asked
    }

    /// Records the node and time of each request from now on. Discards the previous record.
    pub fn record(&self) {
        self.state().record = Some(Vec::new());
    }

    /// Returns the times of requests to a node since `record`.
    pub fn asks(&self, node: usize) -> Vec<Instant> {
        let of_node = |(n, at)| (n == node).then_some(at);
        self.recorded().into_iter().filter_map(of_node).collect()
    }

    /// Returns node and time of each request since `record`, in order.
    pub fn recorded(&self) -> Vec<(usize, Instant)> {
        let state = self.state();
        let record = state.record.as_ref().expect("`record` was called before");
        record.iter().map(|&(n, at)| (n as usize, at)).collect()
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.state().open
    }

    /// Returns the peak of concurrent connections since the start or `forget_most_open`.
    pub fn most_open(&self) -> usize {
        self.state().most_open
    }

    pub fn forget_most_open(&self) {
        let mut state = self.state();
        state.most_open = state.open;
    }

    /// Returns the number of accepted connections, with or without a request.
    pub fn accepted(&self) -> u64 {
        self.state().accepted
    }

    /// Returns the head of the last request.
    pub fn last_head(&self) -> String {
        String::from_utf8_lossy(&self.state().last_head).into_owned()
    }

    /// Waits until a node has received `count` requests since its start.
    #[track_caller]
    pub fn wait_asked(&self, node: usize, count: u64, within: Duration) {
        let done = self.wait(within, |state| u64::from(state.nodes[node].asked) >= count);
        let asked = self.asked(node);
        assert!(
            done,
            "node {node} was asked {asked} times within {within:?}, expected {count}"
        );
    }

    /// Waits until the nodes have received `count` requests in total.
    #[track_caller]
    pub fn wait_asked_total(&self, count: u64, within: Duration) {
        let done = self.wait(within, |state| state.asked >= count);
        let asked = self.asked_total();
        assert!(
            done,
            "the fleet was asked {asked} times within {within:?}, expected {count}"
        );
    }

    /// Waits until exactly `count` connections are open.
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
        let event_loop = self.event_loop.take().expect("joined only here");
        // A second panic while a test unwinds would hide the first.
        assert!(
            event_loop.join().is_ok() || std::thread::panicking(),
            "the fleet's event loop panicked"
        );
    }
}

/// Raises the soft descriptor limit: concurrent probes of all nodes need descriptors here too. A router that inherits
/// the limits could raise its soft limit itself.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // An error is harmless: few tests need many descriptors, and these tests report when they run out.
    let _ = setrlimit(Resource::Nofile, raised);
}

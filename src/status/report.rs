//! What `/status.json` says: the board and, for the nodes of one page, the registry.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Board, Conflict, Filter, MAX_CONFLICTS, find, shown_time};
use crate::metrics::{Metrics, unix_seconds};
use crate::node::{BadLine, ContainerId, ExplorerList, NodeList, Source};
use crate::registry::{NodeState, NodeView, PendingByType, Registry, Standing};
use crate::resources::Resources;
use crate::util::polled::Polled;

/// Container ids on one page, in bytes: a page of 1,000 nodes with 256 long ones each would else have 64 MiB.
const MAX_ID_BYTES: usize = 1024 * 1024;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    pub(super) version: &'static str,
    #[serde(serialize_with = "time")]
    pub(super) started: u64,
    /// Seconds.
    interval: f64,
    pub(super) settings: BTreeMap<&'static str, String>,
    pub(super) ips_file: File,
    pub(super) explorer: Option<Explorer>,
    pub(super) doubt: Doubt,
    /// Whether the pool can't ask all nodes in an interval.
    pub(super) pool_too_small: bool,
    pub(super) totals: Totals,
    /// The first hundred, by id.
    pub(super) conflicting_containers: Vec<Conflict>,
    /// How many nodes pass the filter; `nodes` are one page of them.
    pub(super) matched: usize,
    pub(super) nodes: Vec<Row>,
    /// Since when nodes have been in each state that is trouble, the longest of them; for the page alone.
    #[serde(skip)]
    pub(super) longest: Vec<(NodeState, u64)>,
    /// When it was made, in seconds since 1970.
    #[serde(skip)]
    pub(super) now: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct File {
    pub(super) path: String,
    #[serde(serialize_with = "optional_time")]
    pub(super) read_at: Option<u64>,
    pub(super) nodes: usize,
    /// The first hundred lines that are no address.
    pub(super) skipped: Vec<Line>,
    /// All of them.
    pub(super) skipped_count: usize,
    pub(super) trouble: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
    pub(super) reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Explorer {
    pub(super) url: String,
    #[serde(serialize_with = "optional_time")]
    pub(super) last_success: Option<u64>,
    pub(super) nodes: usize,
    /// Entries that are no address with a port, or one that it may not name.
    pub(super) skipped: usize,
    pub(super) trouble: Option<String>,
}

/// Whether a mass failure is doubted.
#[derive(Debug, Serialize)]
pub(super) struct Doubt {
    pub(super) active: bool,
    #[serde(serialize_with = "optional_time")]
    pub(super) since: Option<u64>,
}

/// How many nodes there are.
#[derive(Debug, Serialize)]
pub(super) struct Totals {
    pub(super) nodes: usize,
    /// Those that clients are sent to.
    pub(super) available: usize,
    #[serde(flatten)]
    pub(super) states: BTreeMap<&'static str, usize>,
    pub(super) conflicting_containers: usize,
}

/// One node.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) address: String,
    pub(super) source: Source,
    pub(super) state: NodeState,
    #[serde(serialize_with = "time")]
    pub(super) since: u64,
    #[serde(serialize_with = "optional_time")]
    pub(super) probed: Option<u64>,
    /// Of the last probe, in milliseconds.
    pub(super) latency: Option<f64>,
    pub(super) pending: Option<PendingByType>,
    pub(super) promises: u64,
    pub(super) speed: Option<ShownSpeed>,
    /// Seconds from now at which it should be through with its work.
    pub(super) finish: Option<f64>,
    #[serde(serialize_with = "ids")]
    pub(super) containers: Vec<ContainerId>,
    /// Those that the page has no room for.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) containers_left_out: usize,
    /// How it stands with its resources; none where it is not available, or nodes are never asked for them.
    pub(super) resources: Option<String>,
    pub(super) reason: Option<String>,
}

/// How fast the router takes a node for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ShownSpeed {
    pub(super) jobs_per_minute: f64,
    /// Whether the node's own counts say so; else it is what an unknown node counts as.
    pub(super) learned: bool,
}

impl StatusReport {
    /// What is true at `now`. The registry is read slice by slice.
    pub(crate) fn new(
        board: &Board,
        registry: &Registry,
        resources: Option<&Resources>,
        metrics: &Metrics,
        filter: &Filter,
        now: Instant,
    ) -> Self {
        let clock = Clock::new(now);
        let found = find(filter, registry);
        let views: Vec<NodeView> = registry.views(&found.ids, now).into_iter().flatten().collect();
        let states = resources.map(|resources| resources.states(views.iter().map(|view| &view.record.addr)));
        let mut room = MAX_ID_BYTES;
        let mut rows: Vec<Row> = views
            .into_iter()
            .map(|view| Row::new(view, &clock, &mut room))
            .collect();
        for (row, state) in rows.iter_mut().zip(states.into_iter().flatten()) {
            row.resources = state;
        }
        let totals = registry.totals();
        let states = NodeState::ALL.map(|state| (state.name(), totals.in_state(state)));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: clock.unix(board.started),
            interval: board.interval.as_secs_f64(),
            settings: board.settings.iter().cloned().collect(),
            ips_file: File::from(&*board.lists.file),
            explorer: board.lists.explorer.as_deref().map(Explorer::from),
            doubt: Doubt {
                active: totals.doubted_since.is_some(),
                since: totals.doubted_since.map(|since| clock.unix(since)),
            },
            pool_too_small: metrics.pool_too_small.get() > 0,
            totals: Totals {
                nodes: states.iter().map(|(_, count)| count).sum(),
                available: totals.available,
                states: states.into(),
                conflicting_containers: totals.conflicting_containers,
            },
            conflicting_containers: registry
                .conflicts()
                .into_iter()
                .take(MAX_CONFLICTS)
                .map(Conflict::from)
                .collect(),
            matched: found.matched,
            nodes: rows,
            longest: found
                .longest
                .into_iter()
                .map(|(state, since)| (state, clock.unix(since)))
                .collect(),
            now: clock.unix(now),
        }
    }
}

/// Shows instants of the monotonic clock as times of day: a jump of the system clock moves all of them alike.
struct Clock {
    now: Instant,
    unix_seconds: u64,
}

impl Clock {
    fn new(now: Instant) -> Self {
        Self {
            now,
            unix_seconds: unix_seconds(),
        }
    }

    fn unix(&self, at: Instant) -> u64 {
        let ago = self.now.saturating_duration_since(at);
        self.unix_seconds.saturating_sub(ago.as_secs())
    }
}

impl Row {
    fn new(view: NodeView, clock: &Clock, room: &mut usize) -> Self {
        let NodeView {
            record,
            standing,
            mut containers,
        } = view;
        // For a node that is not returned to clients, only the promises are still true.
        let working = (!matches!(record.state(), NodeState::Down | NodeState::New)).then_some(standing);
        let all = containers.len();
        containers.retain(|id| {
            let fits = id.as_str().len() <= *room;
            *room = if fits { *room - id.as_str().len() } else { 0 };
            fits
        });
        Self {
            address: record.addr.as_listed().to_owned(),
            source: record.rank.source(),
            state: record.state(),
            since: clock.unix(record.since),
            probed: record.probed.map(|(at, _)| clock.unix(at)),
            latency: record.probed.map(|(_, took)| millis(took)),
            promises: standing.promises,
            speed: working.and_then(ShownSpeed::of),
            finish: working.and_then(|standing| Some(rounded(standing.finish?.as_secs_f64(), 10.0))),
            containers_left_out: all - containers.len(),
            containers,
            resources: None,
            reason: Some(record.reason().to_owned()).filter(|reason| !reason.is_empty()),
            pending: record.pending,
        }
    }
}

impl From<&Polled<NodeList>> for File {
    fn from(polled: &Polled<NodeList>) -> Self {
        let snapshot = polled.snapshot();
        let list = snapshot.value.unwrap_or_default();
        let line = |bad: &BadLine| Line {
            number: bad.number,
            text: bad.text.clone(),
            reason: bad.reason.to_string(),
        };
        Self {
            path: polled.name().to_owned(),
            read_at: snapshot.accepted.map(unix_time),
            nodes: list.nodes.len(),
            skipped: list.bad.iter().map(line).collect(),
            skipped_count: list.bad_count,
            trouble: snapshot.problem,
        }
    }
}

impl From<&Polled<ExplorerList>> for Explorer {
    fn from(polled: &Polled<ExplorerList>) -> Self {
        let snapshot = polled.snapshot();
        let list = snapshot.value.unwrap_or_default();
        Self {
            url: polled.name().to_owned(),
            last_success: snapshot.accepted.map(unix_time),
            nodes: list.nodes.len(),
            skipped: list.skipped + list.refused.len(),
            trouble: snapshot.problem,
        }
    }
}

/// The time of a moment by today's clock, in seconds since 1970: a clock that was set since then does not matter.
fn unix_time(at: Instant) -> u64 {
    unix_seconds().saturating_sub(at.elapsed().as_secs())
}

impl ShownSpeed {
    fn of(standing: Standing) -> Option<Self> {
        Some(Self {
            jobs_per_minute: rounded(standing.speed? * 60.0, 100.0),
            learned: standing.is_learned,
        })
    }
}

/// A hundredth of a millisecond tells nobody anything.
fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1_000.0, 10.0)
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn time<S: serde::Serializer>(at: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown_time(*at))
}

fn optional_time<S: serde::Serializer>(at: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(shown_time).serialize(serializer)
}

fn ids<S: serde::Serializer>(ids: &[ContainerId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ids.iter().map(ContainerId::as_str))
}

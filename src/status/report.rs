//! The types of `/status.json`. The command `status` reads the same types; the page renders them.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::CERTIFICATE_DAYS;
use super::numbers::plural;
use crate::node::{BadLine, Source};
use crate::registry::{NodeState, Summary};
use crate::util::calendar::rfc3339;
use crate::util::text::shorten;

/// Maximum length of the omitted ids in a line of text.
pub(super) const MAX_IDS_CHARS: usize = 200;
/// Maximum length of an image in a line of text.
const MAX_IMAGE_CHARS: usize = 120;

/// The body of `/status.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct StatusReport {
    pub(crate) version: String,
    /// When the report was made.
    pub(crate) time: Moment,
    pub(crate) started: Moment,
    /// Seconds.
    pub(crate) interval: f64,
    /// The settings that differ from their defaults, without secrets.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) ips_file: IpsFileReport,
    pub(crate) explorer: Option<ExplorerReport>,
    /// Why lookups of host names fail; `None` if they succeed.
    pub(crate) name_server: Option<String>,
    pub(crate) doubt: Doubt,
    /// Whether the pool cannot probe all nodes within one interval.
    pub(crate) pool_too_small: bool,
    pub(crate) totals: StatusTotals,
    pub(crate) omitted_containers: OmittedContainers,
    /// The most frequent failures of nodes.
    pub(crate) problems: Vec<NodeProblem>,
    /// The first conflicts by id.
    pub(crate) conflicting_containers: Vec<Conflict>,
    /// Number of nodes that pass the filter. `nodes` is one page of them.
    pub(crate) matched: usize,
    pub(crate) nodes: Vec<NodeRow>,
}

impl StatusReport {
    /// The problems of the router itself, as text.
    pub(crate) fn notes(&self) -> Vec<String> {
        let (totals, omitted) = (&self.totals, &self.omitted_containers);
        let what = if totals.nodes == 0 { "listed" } else { "available" };
        let doubt = "nodes that fail stay available, ranked below all that respond";
        let pool = "The probe pool cannot probe all nodes within one interval: raise MAX_PROBES or REFRESH_INTERVAL";
        let expiring = |count: usize| {
            let nodes = plural(count, "node");
            format!("{nodes} with a certificate that expires within {CERTIFICATE_DAYS} days")
        };
        let omission = |count: usize| {
            let (nodes, ids) = (plural(count, "node"), shorten(&omitted.ids.join(", "), MAX_IDS_CHARS));
            format!("Container ids of {nodes} omitted because a quota was reached, such as {ids}")
        };
        let above_zero = |count: usize| (count > 0).then_some(count);
        let notes = [
            (totals.available == 0).then(|| format!("No node is {what}: clients get empty responses")),
            (self.doubt.since.as_ref()).map(|since| format!("Mass failure suspected since {}: {doubt}", since.text)),
            (self.name_server.as_ref()).map(|problem| format!("{problem}; the last known addresses stay in use")),
            above_zero(totals.expiring_certificates).map(expiring),
            above_zero(omitted.nodes).map(omission),
            self.pool_too_small.then(|| pool.to_owned()),
        ];
        notes.into_iter().flatten().collect()
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct IpsFileReport {
    pub(crate) path: String,
    /// When the list in effect was read.
    pub(crate) read_at: Option<Moment>,
    pub(crate) nodes: usize,
    /// The first invalid lines.
    pub(crate) skipped: Vec<BadLine>,
    /// Number of invalid lines.
    pub(crate) skipped_count: usize,
    /// Why the file is unreadable or was not accepted.
    #[serde(rename = "trouble")]
    pub(crate) problem: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ExplorerReport {
    pub(crate) url: String,
    pub(crate) last_success: Option<Moment>,
    pub(crate) nodes: usize,
    /// Entries without a valid address and port, or with an address outside the permitted network scope.
    pub(crate) skipped: usize,
    /// Why the last poll failed or its list was not accepted.
    #[serde(rename = "trouble")]
    pub(crate) problem: Option<String>,
}

/// Whether a mass failure is suspected.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Doubt {
    pub(crate) active: bool,
    pub(crate) since: Option<Moment>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct StatusTotals {
    pub(crate) nodes: usize,
    /// Nodes that the router returns to clients.
    pub(crate) available: usize,
    /// Number of nodes by state.
    #[serde(flatten)]
    pub(crate) states: BTreeMap<NodeState, usize>,
    pub(crate) conflicting_containers: usize,
    /// Nodes with a certificate that expires within 14 days.
    pub(crate) expiring_certificates: usize,
    /// Pending jobs of the available nodes.
    pub(crate) pending_jobs: u64,
    /// Requests for endpoints below `/api/v1/` since the start.
    pub(crate) requests: u64,
    /// Responses with a status of 500 or above since the start.
    pub(crate) errors: u64,
    /// Number of container ids on available nodes.
    pub(crate) container_ids: usize,
    /// The containers on the most nodes.
    pub(crate) containers: Vec<ContainerTotal>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ContainerTotal {
    pub(crate) id: String,
    /// Available nodes that run the container.
    pub(crate) nodes: usize,
}

/// Container ids that the router does not keep because a quota was reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct OmittedContainers {
    /// Nodes with such ids.
    pub(crate) nodes: usize,
    /// Some of these ids.
    pub(crate) ids: Vec<String>,
}

/// A container id that available nodes run with different images. The router treats an id as one service, so a job may
/// reach any of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    pub(crate) id: String,
    /// At most four images.
    images: Vec<ImageCount>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct ImageCount {
    image: String,
    /// Available nodes that run the id with this image.
    nodes: usize,
}

impl From<&Summary> for Conflict {
    fn from(container: &Summary) -> Self {
        let (id, images) = (container.id.as_str().to_owned(), container.images.iter());
        let images = images.map(|(image, nodes)| (image.to_string(), *nodes));
        let images = images.map(|(image, nodes)| ImageCount { image, nodes }).collect();
        Self { id, images }
    }
}

impl Conflict {
    /// Returns the images as escaped text, each with the number of nodes that run it.
    pub(crate) fn images_text(&self) -> String {
        let text = |of: &ImageCount| format!("{} ({})", shorten(&of.image, MAX_IMAGE_CHARS), plural(of.nodes, "node"));
        self.images.iter().map(text).collect::<Vec<_>>().join(", ")
    }
}

impl Display for Conflict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (id, images) = (&self.id, self.images_text());
        write!(
            f,
            "container {id:?} runs with different images: {images}; a job may reach any of them"
        )
    }
}

/// Nodes in one state for one reason.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NodeProblem {
    pub(crate) state: NodeState,
    pub(crate) reason: String,
    pub(crate) nodes: usize,
    /// When the first of these nodes entered the state.
    pub(crate) since: Moment,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NodeRow {
    pub(crate) address: String,
    /// The comment after the address in ips.txt.
    pub(crate) name: Option<String>,
    pub(crate) source: Source,
    pub(crate) state: NodeState,
    pub(crate) since: Moment,
    pub(crate) draining: bool,
    pub(crate) backup: bool,
    /// The address that clients get instead of `address`.
    #[serde(rename = "as")]
    pub(crate) public_address: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) probed: Option<Moment>,
    /// Duration of the last probe in milliseconds.
    pub(crate) latency: Option<f64>,
    /// Pending jobs by type.
    pub(crate) pending: Option<BTreeMap<String, u64>>,
    pub(crate) promises: u64,
    pub(crate) speed: Option<SpeedReport>,
    /// Seconds from now until the expected completion of the node's jobs.
    pub(crate) finish: Option<f64>,
    pub(crate) certificate_expires: Option<String>,
    /// Days until the expiry, negative after it.
    pub(crate) certificate_days: Option<i64>,
    pub(crate) containers: Vec<String>,
    /// Number of ids that were omitted to limit the size of the response.
    pub(crate) containers_left_out: usize,
    /// State of the node's resources. None if the node is not available or resources are not polled.
    pub(crate) resources: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct SpeedReport {
    pub(crate) jobs_per_minute: f64,
    /// Whether the speed follows from the node's reports. Otherwise it is the assumed speed of an unknown node.
    pub(crate) learned: bool,
}

/// A point in time: RFC 3339 in JSON, an age on the page. The age is measured on the monotonic clock, so a jump of the
/// system clock moves the time that is shown, not the age.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Moment {
    pub(crate) text: String,
    /// Time until the report was made. Zero for a moment in the future and after deserialization.
    #[serde(skip)]
    pub(crate) age: Duration,
}

/// Both clocks at one moment: converts instants to moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Clocks {
    pub(crate) fn moment(self, at: Instant) -> Moment {
        let age = self.now.saturating_duration_since(at);
        let at = self.wall.checked_sub(age).unwrap_or(UNIX_EPOCH);
        let text = to_second(at);
        Moment { text, age }
    }

    /// Whole days from now until a time of the system clock; negative for the past.
    pub(crate) fn days_until(self, at: SystemTime) -> i64 {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        (seconds(at) - seconds(self.wall)).div_euclid(86_400)
    }
}

/// RFC 3339 to the second.
pub(super) fn to_second(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn jump_of_system_clock_moves_time_not_age() {
        let at = Instant::now();
        let now = at + Duration::from_secs(60);
        let year = Duration::from_secs(400 * 86_400);
        let wall = UNIX_EPOCH + year;
        let moment = Clocks { now, wall }.moment(at);
        assert_eq!((&*moment.text, moment.age.as_secs()), ("1971-02-04T23:59:00Z", 60));
        let wall = wall + year;
        let moment = Clocks { now, wall }.moment(at);
        assert_eq!((&*moment.text, moment.age.as_secs()), ("1972-03-10T23:59:00Z", 60));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the test's clock begins")]
    fn days_until_a_time_are_rounded_down() {
        let (now, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(86_400 * 9));
        let clocks = Clocks { now, wall };
        let days = [0, 1, 86_399, 86_400].map(Duration::from_secs);
        assert_eq!(days.map(|duration| clocks.days_until(wall + duration)), [0, 0, 0, 1]);
        assert_eq!(days.map(|duration| clocks.days_until(wall - duration)), [0, -1, -1, -1]);
    }

    #[test]
    fn totals_survive_a_round_trip_through_json() {
        let totals = StatusTotals {
            nodes: 1,
            available: 1,
            states: NodeState::ALL.map(|state| (state, 7)).into(),
            conflicting_containers: 0,
            expiring_certificates: 0,
            pending_jobs: u64::MAX,
            requests: 2,
            errors: 3,
            container_ids: 0,
            containers: Vec::new(),
        };
        let text = serde_json::to_string(&totals).expect("JSON");
        let read: StatusTotals = serde_json::from_str(&text).expect("totals");
        assert_eq!((read.states, read.pending_jobs), (totals.states, u64::MAX));
    }
}

//! `/status` and `/status.json`: what the router knows of its lists and nodes, and why it returns the responses that it
//! does.
//!
//! [`Reporter`] reads the nodes from the registry in slices.

mod numbers;
mod page;
mod report;
mod reporter;

use crate::registry::NodeState;
pub(crate) use page::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, to_html};
pub(crate) use report::{Conflict, NodeRow, StatusReport};
pub(crate) use reporter::{Reporter, natural_key};

/// Nodes on a page if the query has no `n`.
pub(crate) const DEFAULT_N: u32 = 100;

/// A certificate that expires within fewer days is a problem: renewals run 30 days before the end.
const CERTIFICATE_DAYS: i64 = 14;

/// Selects nodes for the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only nodes in this state.
    pub(crate) state: Option<NodeState>,
    /// Only available and draining nodes that run this container.
    pub(crate) container: Option<String>,
    /// Only nodes with this text in their address, case-insensitive.
    pub(crate) part: Option<String>,
    /// Page size.
    pub(crate) n: usize,
    /// Nodes to skip.
    pub(crate) offset: usize,
    /// Whether the page does not refresh itself and has the filter form.
    pub(crate) is_paused: bool,
}

//! Probes one node: a single `GET /info`, bounded in time and size. Does not log and does not decide health.

use std::time::SystemTime;

use crate::metrics::ProbeOutcome;
use crate::net::{Bounds, Family, Fetcher, MAX_REDIRECTS, NODE_TIMEOUT, Response};
use crate::node::{NodeAddr, NodeInfo, Source};
use crate::registry::NodeId;

/// Longest `/info` body. Real bodies have a few KiB, and 128 probes remain below 32 MiB.
pub(crate) const MAX_INFO_BYTES: u64 = 256 * 1024;

/// The outcome of a probe.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The node responds as a node does.
    Up(NodeInfo),
    /// 429: the node is alive but rate-limits the router. Neither a success nor a failure.
    Limited,
    /// A failure with its reason.
    Failed(String),
    /// A local error (descriptors, memory, ports) with its reason: no verdict on the node.
    LocalError(String),
}

impl Outcome {
    /// The outcome without its data.
    pub(super) fn kind(&self) -> ProbeOutcome {
        match self {
            Outcome::Up(_) => ProbeOutcome::Up,
            Outcome::Limited => ProbeOutcome::Limited,
            Outcome::Failed(_) => ProbeOutcome::Failed,
            Outcome::LocalError(_) => ProbeOutcome::Local,
        }
    }
}

/// Probes one node within [`NODE_TIMEOUT`].
pub(crate) fn probe(fetcher: &Fetcher, addr: &NodeAddr, source: Source) -> Probe {
    match fetcher.get(&(addr.url() + "/info"), bounds(source, MAX_INFO_BYTES)) {
        Ok(response) => Probe {
            redirected_to: response.redirected_to.clone(),
            family: response.peer.map(|peer| peer.family),
            certificate_expires: response.peer.and_then(|peer| peer.certificate_expires),
            outcome: outcome(response, addr),
        },
        Err(error) => Probe {
            family: error.network(),
            ..Probe::of(match error.is_local() {
                true => Outcome::LocalError(with_port(error.to_string(), addr)),
                false => Outcome::Failed(with_port(error.to_string(), addr)),
            })
        },
    }
}

/// The limits of a request to a node.
pub(super) fn bounds(source: Source, max_body_bytes: u64) -> Bounds {
    Bounds {
        timeout: NODE_TIMEOUT,
        max_body_bytes,
        max_redirects: match source {
            Source::IpsFile => MAX_REDIRECTS,
            Source::Explorer => 0,
        },
    }
}

/// Names the port if the list does not: an operator may not expect the default.
fn with_port(reason: String, addr: &NodeAddr) -> String {
    match addr.implied_port() {
        Some(port) => format!("{reason} (default port {port}: the address has none)"),
        None => reason,
    }
}

fn outcome(mut response: Response, addr: &NodeAddr) -> Outcome {
    if response.status == 429 {
        return Outcome::Limited;
    }
    let redirected_to = response.redirected_to.take();
    let body = response.into_body().map_err(|error| error.to_string());
    match body.and_then(|body| NodeInfo::parse(&body).map_err(|error| error.to_string())) {
        Ok(info) => Outcome::Up(info),
        Err(reason) => Outcome::Failed(match redirected_to {
            Some(to) => format!("{reason}, behind a redirect to \"{to}\""),
            None => with_port(reason, addr),
        }),
    }
}

/// A node to probe.
#[derive(Debug)]
pub(crate) struct ProbeJob {
    pub(crate) id: NodeId,
    pub(crate) addr: NodeAddr,
    pub(crate) source: Source,
}

/// The result of a probe.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) outcome: Outcome,
    /// The target of the redirects that were followed, escaped.
    pub(crate) redirected_to: Option<String>,
    /// With a response: the family over which the node responded. With a local error: the family that the local network
    /// stack refuses. `None` if the cause is something else.
    pub(crate) family: Option<Family>,
    /// When the certificate of an https node expires.
    pub(crate) certificate_expires: Option<SystemTime>,
}

impl Probe {
    /// The result of a probe that panicked: a failure.
    pub(crate) fn panicked() -> Self {
        Self::of(Outcome::Failed("the probe panicked".to_owned()))
    }

    /// A result that has only an outcome.
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            redirected_to: None,
            family: None,
            certificate_expires: None,
        }
    }
}

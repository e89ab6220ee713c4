//! A stand-in Node Explorer: what `API_URL` points to.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use super::fleet::{Behaviour, Fleet};

/// Behaviour of the Explorer for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Lists these nodes in the documented shape.
    Nodes(Vec<SocketAddr>),
    /// Status 200 as JSON, with this body.
    Body(String),
    /// This status as JSON, with this body.
    Status(u16, String),
    /// Status 200 and a web page, as from a wrong `API_URL`.
    Html,
    Hang,
    Drip,
    Endless,
    Reset,
    /// The port refuses connections.
    Refuse,
    Redirect(String),
    /// Delays the response until the next change of the listing.
    Wait,
}

/// A service on 127.0.0.1 that runs until it is dropped.
pub struct Explorer {
    /// A fleet of one "node" with the targets of an Explorer.
    service: Fleet,
}

impl Explorer {
    pub fn start(listing: Listing) -> Self {
        let target = |target: &str| target.ends_with("/api/nodes?minutes_past=60");
        let explorer = Self {
            service: Fleet::serve(Ipv4Addr::LOCALHOST, 1, target),
        };
        explorer.set(listing);
        explorer
    }

    pub fn addr(&self) -> SocketAddr {
        self.service.addr(0)
    }

    /// The value for `API_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Sets the behaviour from the next request on.
    pub fn set(&self, listing: Listing) {
        let behaviour = match listing {
            Listing::Refuse => return self.service.refuse(),
            Listing::Nodes(nodes) => Behaviour::Body(body(&nodes)),
            Listing::Body(body) => Behaviour::Body(body.into()),
            Listing::Status(status, body) => Behaviour::Answer {
                status,
                content_type: "application/json",
                body: body.into(),
            },
            Listing::Html => Behaviour::Answer {
                status: 200,
                content_type: "text/html",
                body: b"<!doctype html><title>Explorer</title>".into(),
            },
            Listing::Hang => Behaviour::Hang,
            Listing::Drip => Behaviour::Drip,
            Listing::Endless => Behaviour::Endless,
            Listing::Reset => Behaviour::Reset,
            Listing::Redirect(location) => Behaviour::Redirect(location),
            Listing::Wait => Behaviour::Wait,
        };
        self.service.set(0, behaviour);
        self.service.listen();
    }

    /// Returns the number of requests so far.
    pub fn asked(&self) -> u64 {
        self.service.asked(0)
    }

    /// The target of the last request, such as `/api/nodes?minutes_past=60`.
    pub fn last_target(&self) -> String {
        let head = self.service.last_head();
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Returns the head of the last request.
    pub fn last_head(&self) -> String {
        self.service.last_head()
    }

    /// Waits until the Explorer has received `count` requests since its start.
    #[track_caller]
    pub fn wait_asked(&self, count: u64, within: Duration) {
        self.service.wait_asked(0, count, within);
    }
}

fn body(nodes: &[SocketAddr]) -> Vec<u8> {
    let entry = |node: &SocketAddr| json!({"ip": node.ip().to_string(), "port": node.port()});
    let data: Vec<_> = nodes.iter().map(entry).collect();
    json!({ "data": data }).to_string().into_bytes()
}

//! What happens to a client connection, and what its owner has to do then.

use std::time::Instant;

use crate::client::Client;
use crate::gate::head::Request;
use crate::gate::refusal::Refusal;
use crate::metrics::Refused;
use crate::response::Deferral;

/// A request between its header section and its response.
#[derive(Debug)]
pub(in crate::gate) struct InFlight {
    pub(in crate::gate) request: Request,
    /// When its header section was complete.
    pub(in crate::gate) begun: Instant,
}

/// An event for a connection. An event that does not apply to its stage changes nothing.
#[derive(Debug)]
pub(in crate::gate) enum Event<'a> {
    /// The client has sent these bytes.
    Received(&'a [u8]),
    /// The client will send nothing more.
    Ended,
    /// A ticket is free.
    Dispatched,
    /// The workers' response to the request.
    Responded(Vec<u8>),
    /// The workers have deferred the request, and receive it again.
    Repeated(Deferral),
    /// The kernel may have room to send.
    Writable,
    /// This many bytes were sent.
    Sent(usize),
    /// `Connection::is_late`.
    Expired,
    /// The connection is refused or evicted, or its request is lost.
    Rejected(Refusal),
    /// The router shuts down.
    Draining,
}

/// What the caller has to do for a connection.
#[derive(Debug)]
pub(in crate::gate) enum Action {
    Nothing,
    /// Pass [`Event::Dispatched`] when a ticket is free and it is the client's turn.
    Queue(Client),
    /// Send `Connection::in_flight` to the workers.
    Forward,
    /// Count the refusal, then [`Action::Send`] it.
    Refuse(Refused),
    /// Send bytes of `Connection::unsent` and pass [`Event::Sent`].
    Send,
    /// Close the sending half.
    Shutdown,
    /// Close the connection, and count it as refused if there is a reason.
    Close(Option<Refused>),
}

//! The connection of one request: TCP, TLS for an https URL, and one deadline over both.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::reason::{Family, FetchError};
use super::{MAX_HEADER_BYTES, certificate};

/// Buffers of a connection: ureq's default of 128 KiB each way costs 128 probes 50 MiB instead of 21 MiB. The input
/// holds a whole header section and one byte more, which reveals a longer one.
const INPUT_BUFFER_BYTES: usize = MAX_HEADER_BYTES + 1;
const OUTPUT_BUFFER_BYTES: usize = 4 * 1024;
/// Longest connect. A connect cannot be interrupted, and a shutdown takes at most 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How late a read may notice a shutdown.
const MAX_READ: Duration = Duration::from_millis(500);
/// Capacity of ureq's list of addresses.
const MAX_ADDRS: usize = 16;

/// How one request reaches its server: ureq's resolver and connector in one. The addresses are resolved beforehand.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) addrs: Vec<IpAddr>,
    pub(super) deadline: Instant,
    /// Set by a shutdown.
    pub(super) is_closed: Arc<AtomicBool>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) peer: Arc<OnceLock<Peer>>,
}

/// The server that a request has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The family of its address.
    pub(crate) family: Family,
    /// When its verified certificate expires. `None` without TLS.
    pub(crate) certificate_expires: Option<SystemTime>,
}

impl Resolver for Dial {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addrs = self.empty();
        let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        let sockets = self.addrs.iter().map(|addr| SocketAddr::new(*addr, port));
        sockets.take(MAX_ADDRS).for_each(|socket| addrs.push(socket));
        Ok(addrs)
    }
}

impl Connector for Dial {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
        let (mut socket, addr) = self.open(&details.addrs)?;
        let host = details.uri.host().unwrap_or_default();
        let tls = details.needs_tls().then(|| self.shake_hands(&mut socket, host));
        let tls = tls.transpose()?;
        let chain = tls.as_ref().and_then(|tls| tls.peer_certificates());
        // Set once: each request has a separate connection and `Dial`.
        let _ = self.peer.set(Peer {
            family: addr.into(),
            certificate_expires: chain.and_then(|chain| certificate::not_after(chain.first()?)),
        });
        let buffers = LazyBuffers::new(INPUT_BUFFER_BYTES, OUTPUT_BUFFER_BYTES);
        Ok(Some(Wire { socket, tls, buffers }))
    }
}

impl Dial {
    #[expect(clippy::disallowed_methods, reason = "I/O against a deadline")]
    fn time_left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() || self.is_closed.load(Relaxed) {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }

    /// Connects to the first address that accepts. Each address has half of the time that is left, the last one all.
    ///
    /// # Errors
    /// The last error caused by a peer, else the last error.
    fn open(&self, addrs: &[SocketAddr]) -> Result<(Socket, SocketAddr), FetchError> {
        let mut failed = FetchError::timeout();
        for (number, addr) in addrs.iter().enumerate() {
            let left = self.time_left()?;
            let patience = if number + 1 < addrs.len() { left / 2 } else { left };
            match TcpStream::connect_timeout(addr, patience.min(CONNECT_TIMEOUT)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let dial = self.clone();
                    return Ok((Socket { stream, dial }, *addr));
                }
                Err(error) => {
                    let error = FetchError::of_connect(error, *addr);
                    if number == 0 || !error.is_local() || failed.is_local() {
                        failed = error;
                    }
                }
            }
        }
        Err(failed)
    }

    fn shake_hands(&self, socket: &mut Socket, host: &str) -> Result<ClientConnection, FetchError> {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| FetchError::of_peer("host name invalid for TLS"))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        connection.complete_io(socket)?;
        Ok(connection)
    }
}

/// A TCP socket with one deadline for all that is read and written.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    dial: Dial,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use io::ErrorKind::{Interrupted, WouldBlock};
        loop {
            let patience = self.dial.time_left()?.min(MAX_READ);
            self.stream.set_read_timeout(Some(patience))?;
            match self.stream.read(buffer) {
                // A signal interrupts a read that has a timeout.
                Err(error) if matches!(error.kind(), Interrupted | WouldBlock) => {}
                result => return result,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.dial.time_left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What ureq reads from and writes to.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    tls: Option<ClientConnection>,
    buffers: LazyBuffers,
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let bytes = &self.buffers.output()[..amount];
        match &mut self.tls {
            Some(tls) => Stream::new(tls, &mut self.socket).write_all(bytes)?,
            None => self.socket.write_all(bytes)?,
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let buffer = self.buffers.input_append_buf();
        let amount = match &mut self.tls {
            Some(tls) => Stream::new(tls, &mut self.socket).read(buffer)?,
            None => self.socket.read(buffer)?,
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false // no connection is used twice
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

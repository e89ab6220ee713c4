//! The connection of one request: TCP, TLS for an https URL, and one deadline over both.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::certificate;
use super::reason::FetchError;

/// Longest header section of a response. Nodes send some 200 bytes, an Explorer at a content network a few KiB.
pub(super) const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Buffers of a connection: ureq's default of 128 KiB each way costs 128 probes 50 MiB instead of 21 MiB. The input
/// holds a whole header section and one byte more, which reveals a longer one.
const INPUT_BUFFER_BYTES: usize = MAX_HEADER_BYTES + 1;
const OUTPUT_BUFFER_BYTES: usize = 4 * 1024;
/// Longest connect. A connect cannot be interrupted, and a shutdown takes at most 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Capacity of ureq's list of addresses.
pub(super) const MAX_ADDRS: usize = 16;

/// How one request reaches its server: ureq's resolver and connector in one. The addresses are resolved beforehand.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) addrs: Arc<[SocketAddr]>,
    pub(super) deadline: Instant,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) sockets: Sockets,
    pub(super) peer: Arc<OnceLock<Peer>>,
}

/// The server that a request has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// When its verified certificate expires. `None` without TLS.
    pub(super) certificate_expires: Option<SystemTime>,
}

impl Resolver for Dial {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addrs = self.empty();
        self.addrs.iter().take(MAX_ADDRS).for_each(|addr| addrs.push(*addr));
        Ok(addrs)
    }
}

impl Connector for Dial {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
        let (socket, addr) = self.open(&details.addrs)?;
        let mut certificate_expires = None;
        let stream: Box<dyn Stream> = if details.needs_tls() {
            let tls = self.shake_hands(socket, details.uri.host().unwrap_or_default())?;
            let chain = tls.conn.peer_certificates().unwrap_or_default();
            certificate_expires = chain.first().and_then(|leaf| certificate::not_after(leaf));
            Box::new(tls)
        } else {
            Box::new(socket)
        };
        // Set once: each request has a separate connection and `Dial`.
        let _ = self.peer.set(Peer {
            addr,
            certificate_expires,
        });
        let buffers = LazyBuffers::new(INPUT_BUFFER_BYTES, OUTPUT_BUFFER_BYTES);
        let is_tls = details.needs_tls();
        Ok(Some(Wire {
            stream,
            buffers,
            is_tls,
        }))
    }
}

impl Dial {
    /// Connects to the first address that accepts. Each address has half of the time that is left, the last one all.
    ///
    /// # Errors
    /// The last error for which a peer is the cause. If there is none, the last one.
    fn open(&self, addrs: &[SocketAddr]) -> Result<(Socket, SocketAddr), FetchError> {
        let mut failed: Option<FetchError> = None;
        for (number, addr) in addrs.iter().enumerate() {
            let left = time_left(self.deadline).map_err(FetchError::from)?;
            let patience = if number + 1 < addrs.len() { left / 2 } else { left };
            let patience = patience.min(CONNECT_TIMEOUT);
            let error = match TcpStream::connect_timeout(addr, patience) {
                Ok(stream) => return Ok((self.socket(stream)?, *addr)),
                Err(error) => FetchError::of_connect(&error, *addr),
            };
            if failed
                .as_ref()
                .is_none_or(|failed| !error.is_local() || failed.is_local())
            {
                failed = Some(error);
            }
        }
        Err(failed.unwrap_or_else(FetchError::timeout))
    }

    fn socket(&self, stream: TcpStream) -> Result<Socket, FetchError> {
        stream.set_nodelay(true).map_err(FetchError::from)?;
        let stream = Arc::new(stream);
        self.sockets.add(&stream)?;
        let deadline = self.deadline;
        Ok(Socket { stream, deadline })
    }

    fn shake_hands(&self, mut socket: Socket, host: &str) -> Result<StreamOwned<ClientConnection, Socket>, FetchError> {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| FetchError::of_peer("host name invalid for TLS"))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        connection.complete_io(&mut socket)?;
        Ok(StreamOwned::new(connection, socket))
    }
}

/// The sockets in use, so that a shutdown can close them. `None` after the shutdown.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Arc<Mutex<Option<Vec<Weak<TcpStream>>>>>);

impl Default for Sockets {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }
}

impl Sockets {
    fn add(&self, stream: &Arc<TcpStream>) -> Result<(), FetchError> {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sockets) = sockets.as_mut() else {
            return Err(FetchError::shutdown());
        };
        // Before the list grows, so that a closed socket costs a constant share of one scan.
        if sockets.len() == sockets.capacity() {
            sockets.retain(|socket| socket.strong_count() > 0);
        }
        sockets.push(Arc::downgrade(stream));
        Ok(())
    }

    /// Closes all of them, and lets no further one open.
    pub(super) fn shutdown(&self) {
        let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        for socket in sockets.iter().flatten().filter_map(Weak::upgrade) {
            // An error means that the socket is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A TCP socket with a deadline for all that is read and written.
#[derive(Debug)]
struct Socket {
    stream: Arc<TcpStream>,
    deadline: Instant,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(time_left(self.deadline)?))?;
            match (&*self.stream).read(buffer) {
                // A signal interrupts a read that has a timeout.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(time_left(self.deadline)?))?;
        (&*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "I/O against a deadline")]
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

trait Stream: Read + Write + std::fmt::Debug + Send + Sync {}

impl<S: Read + Write + std::fmt::Debug + Send + Sync> Stream for S {}

/// What ureq reads from and writes to.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffers: LazyBuffers,
    is_tls: bool,
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false // no connection is used twice
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

//! An address where a connect hangs, as with a firewall that drops all packets.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// Maximum number of connects to fill the backlog. The kernel accepts one or two.
const FILLERS: usize = 8;

/// A listener with a full backlog that never accepts.
pub struct Silent {
    addr: SocketAddr,
    /// Sockets that keep the backlog full, and the listener.
    _sockets: Vec<OwnedFd>,
}

impl Silent {
    #[track_caller]
    pub fn start() -> Self {
        let listener = socket();
        net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
        net::listen(&listener, 0).expect("a bound socket");
        let addr = net::getsockname(&listener).expect("a bound socket");
        let addr = SocketAddr::try_from(addr).expect("an IPv4 address");
        let mut sockets = vec![listener];
        for _ in 0..FILLERS {
            let filler = socket();
            let connected = net::connect(&filler, &addr);
            assert!(matches!(connected, Ok(()) | Err(Errno::INPROGRESS)), "{connected:?}");
            sockets.push(filler);
        }
        let another = TcpStream::connect_timeout(&addr, Duration::from_millis(100));
        assert!(another.is_err(), "a full backlog accepts no connection");
        Self {
            addr,
            _sockets: sockets,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket is available")
}

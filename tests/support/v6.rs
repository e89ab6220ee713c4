//! A stand-in node on ::1, if the machine has IPv6.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use rustix::net::{Shutdown, shutdown};

use super::fleet;

/// A healthy node with the container `v6`, which runs until it is dropped.
pub struct V6Node {
    addr: SocketAddr,
    listener: TcpListener,
    server: Option<JoinHandle<()>>,
}

impl V6Node {
    /// Returns `None` without IPv6.
    pub fn start() -> Option<Self> {
        Self::start_at(Ipv6Addr::LOCALHOST.into())
    }

    /// Starts a node that responds to the first bytes of any client, also of one that speaks TLS.
    pub fn start_at(addr: IpAddr) -> Option<Self> {
        let listener = TcpListener::bind((addr, 0)).ok()?;
        let addr = listener.local_addr().expect("the listener is bound");
        let accepting = listener.try_clone().expect("a descriptor is available");
        let server = std::thread::Builder::new()
            .name("v6 node".into())
            .spawn(move || while answer(&accepting).is_ok() {})
            .expect("a thread is available");
        Some(Self {
            addr,
            listener,
            server: Some(server),
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for V6Node {
    fn drop(&mut self) {
        // On Linux this aborts a waiting accept with an error.
        shutdown(&self.listener, Shutdown::Both).expect("a listening socket");
        if let Some(server) = self.server.take() {
            // The thread has printed its panic. A second panic during unwinding would abort.
            let _ = server.join();
        }
    }
}

/// A request head of the router fits into one segment.
fn answer(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(&fleet::up(0, &["v6".to_owned()]));
    Ok(())
}

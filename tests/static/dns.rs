//! A stand-in name server with given names: IPv4 only, over UDP on a loopback address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Few machines have a name server on this address.
const ADDR: Ipv4Addr = Ipv4Addr::new(127, 53, 53, 53);

/// glibc queries only this port.
const PORT: u16 = 53;

/// Maximum length of a query over UDP without extensions (RFC 1035, section 4.2.1).
const MAX_QUERY_BYTES: usize = 512;

/// Length of the header before the question (RFC 1035, section 4.1.1).
const HEADER_BYTES: usize = 12;

/// Record type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<String, Ipv4Addr>>,
    asked: AtomicU64,
}

/// Serves until it is dropped.
pub struct Dns {
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

impl Dns {
    pub fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((ADDR, PORT))?;
        let shared = Arc::new(Shared::default());
        let for_server = Arc::clone(&shared);
        let server = std::thread::Builder::new().name("dns".into());
        #[expect(clippy::disallowed_methods, reason = "a stand-in starts a thread of its own")]
        let server = server.spawn(move || for_server.serve(&socket))?;
        Ok(Self {
            shared,
            server: Some(server),
        })
    }

    pub fn ip(&self) -> Ipv4Addr {
        ADDR
    }

    pub fn set(&self, name: &str, ip: IpAddr) {
        let IpAddr::V4(ip) = ip else {
            panic!("{ip} is no IPv4 address");
        };
        let mut names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), ip);
    }

    /// Returns the number of queries so far.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        // An empty datagram is the command to stop.
        let told = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(b"", (ADDR, PORT)));
        if let (Ok(_), Some(server)) = (told, self.server.take()) {
            // The thread has printed its panic. A second panic during unwinding would abort.
            let _ = server.join();
        }
    }
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; MAX_QUERY_BYTES];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if length == 0 {
                return;
            }
            self.asked.fetch_add(1, Relaxed);
            if let Some(answer) = self.answer(&buffer[..length]) {
                reply(socket, &answer, client);
            }
        }
    }

    /// Returns the response: the query, followed by the address of the name in its first question.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = query.get(HEADER_BYTES..)?;
        let name_bytes = question.iter().position(|byte| *byte == 0)? + 1;
        let kind = question.get(name_bytes..name_bytes + A_IN.len())?;
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let ip = names.get(&name(&question[..name_bytes])?);

        let records = u8::from(ip.is_some() && kind == A_IN);
        let code = if ip.is_some() { 0 } else { 3 };
        // An authoritative answer to one question; code 3 is "no such name".
        let mut answer = query[..2].to_vec();
        answer.extend([0x84, code, 0, 1, 0, records, 0, 0, 0, 0]);
        answer.extend(&question[..name_bytes + A_IN.len()]);
        if let Some(ip) = ip.filter(|_| records == 1) {
            // A pointer to the name in the question, type and class, a TTL of 1 s, four bytes.
            answer.extend([0xc0, HEADER_BYTES as u8]);
            answer.extend(A_IN);
            answer.extend([0, 0, 0, 1, 0, 4]);
            answer.extend(ip.octets());
        }
        Some(answer)
    }
}

fn reply(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    // The client may have closed its socket.
    let _ = socket.send_to(answer, client);
}

/// Returns the labels before the empty label, joined by dots.
fn name(mut labels: &[u8]) -> Option<String> {
    let mut name: Vec<String> = Vec::new();
    while let Some((length, rest)) = labels.split_first().filter(|(length, _)| **length > 0) {
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        name.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        labels = rest;
    }
    Some(name.join("."))
}

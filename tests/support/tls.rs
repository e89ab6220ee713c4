//! A stand-in node that serves https, with a separate certificate authority.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustix::net::{Shutdown, shutdown};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::fleet;

/// Maximum time that one client delays the others.
const CLIENT_DEADLINE: Duration = Duration::from_secs(5);

/// Maximum length of a request head.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Kind of certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Signed by the authority.
    Signed,
    /// Signed by the authority, and expired.
    Expired,
    /// Signed by the authority, valid for this long from now on.
    ExpiresIn(Duration),
    /// Signed by the authority, for clients only.
    ClientOnly,
    /// Signed by the authority, with the name only as its common name.
    CommonNameOnly,
    /// Signed by itself, as a leaf; the authority to trust is itself.
    SelfSigned,
    /// Signed by itself with CA:TRUE, as `openssl req -x509` makes it; the authority to trust is itself.
    SelfSignedAuthority,
}

/// A healthy node on 127.0.0.1 with the container `tls`, which runs until it is dropped.
pub struct TlsNode {
    addr: SocketAddr,
    ca_pem: String,
    counts: Arc<Counts>,
    listener: TcpListener,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl TlsNode {
    /// Starts a node with a certificate for 127.0.0.1 and localhost.
    pub fn start() -> Self {
        Self::start_as(&["127.0.0.1", "localhost"])
    }

    /// Starts a node with a certificate for these names or addresses.
    pub fn start_as(names: &[&str]) -> Self {
        Self::start_with(names, Leaf::Signed)
    }

    /// Starts a node with a certificate of this kind, for these names or addresses.
    pub fn start_with(names: &[&str], leaf: Leaf) -> Self {
        let (config, ca_pem) = server_config(names, leaf);
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let addr = listener.local_addr().expect("the listener is bound");
        let counts = Arc::new(Counts::default());
        let for_server = Arc::clone(&counts);
        let accepting = listener.try_clone().expect("a descriptor is available");
        let server = std::thread::Builder::new()
            .name("tls node".into())
            .spawn(move || serve(&accepting, &config, &for_server))
            .expect("a thread is available");
        Self {
            addr,
            ca_pem,
            counts,
            listener,
            server: Some(server),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the node's line in ips.txt.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Returns the authority that a client has to trust.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Writes the authority to a file, for `SSL_CERT_FILE`.
    pub fn write_ca(&self, path: &Path) {
        std::fs::write(path, &self.ca_pem).expect("the test may write there");
    }

    /// Returns the number of answered requests.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Returns the number of connections without a response: the client did not trust the node, or timed out.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }
}

impl Drop for TlsNode {
    fn drop(&mut self) {
        // On Linux this aborts a waiting accept with an error.
        shutdown(&self.listener, Shutdown::Both).expect("a listening socket");
        if let Some(server) = self.server.take() {
            // The thread has printed its panic. A second panic during unwinding would abort.
            let _ = server.join();
        }
    }
}

/// Serves one client after another until the listener is shut down.
fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, counts: &Counts) {
    while let Ok((stream, _)) = listener.accept() {
        let count = match answer(stream, Arc::clone(config)) {
            Ok(()) => &counts.answered,
            Err(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_DEADLINE))?;
    stream.set_write_timeout(Some(CLIENT_DEADLINE))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        let n = tls.read(&mut buffer)?;
        if n == 0 || head.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..n]);
    }
    let answer = if head.starts_with(b"GET /info HTTP/1.1\r\n") {
        fleet::up(0, &["tls".to_owned()])
    } else {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    };
    tls.write_all(&answer)?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).expect("no names are valid names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "stand-in authority");
    CertifiedIssuer::self_signed(params, new_key()).expect("the parameters are complete")
}

/// Returns the configuration, and the authority to trust.
fn server_config(names: &[&str], leaf: Leaf) -> (ServerConfig, String) {
    let key = new_key();
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are DNS names or addresses");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    match leaf {
        Leaf::Expired => params.not_after = rcgen::date_time_ymd(2001, 1, 1),
        Leaf::SelfSignedAuthority => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        Leaf::SelfSigned => params.is_ca = IsCa::ExplicitNoCa,
        Leaf::ExpiresIn(time) => params.not_after = (SystemTime::now() + time).into(),
        Leaf::ClientOnly => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Leaf::CommonNameOnly => {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
        }
        Leaf::Signed => {}
    }
    let (leaf, ca_pem) = match leaf {
        Leaf::Signed | Leaf::Expired | Leaf::ExpiresIn(_) | Leaf::ClientOnly | Leaf::CommonNameOnly => {
            let ca = authority();
            (params.signed_by(&key, &ca).expect("complete"), ca.pem())
        }
        Leaf::SelfSigned | Leaf::SelfSignedAuthority => {
            let leaf = params.self_signed(&key).expect("complete");
            let pem = leaf.pem();
            (leaf, pem)
        }
    };
    let secret = PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS#8");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], secret)
        .expect("the key belongs to the certificate");
    (config, ca_pem)
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("randomness is available")
}

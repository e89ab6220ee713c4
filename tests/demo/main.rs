//! `make demo`: runs the router, whose path is the argument, against three stand-in nodes on loopback, and prints the
//! commands to try. Settings in the environment are the router's. With the argument `nodes`, runs only the nodes, for a
//! router that is started elsewhere: they print an ips.txt and exit when their input closes.
//!
//! Uses the standard library only: `make demo` compiles this file without the dependencies of the tests.
#![allow(missing_docs, reason = "no library")]
#![allow(clippy::disallowed_methods, reason = "a stand-in starts its own threads")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use std::{env, fs, thread};

/// Pending jobs and containers of each node.
const NODES: [(u64, &[&str]); 3] = [
    (7, &["hello-world", "summarizer"]),
    (2, &["hello-world"]),
    (0, &["hello-world", "classifier", "summarizer"]),
];

/// The services that report their resources, each with its inference engine. As on real nodes, a service without this
/// endpoint is missing from the response.
const ENGINES: [(&str, &str); 2] = [("classifier", "onnx"), ("summarizer", "hf_inference_client")];
/// Suffix of the model ids that the onnx service supports.
const MODEL_SUFFIX: &str = ".onnx";

/// All of 127.0.0.0/8 is this machine. The other nodes have the next addresses.
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// Read timeout of a client connection.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest job that a stand-in node accepts.
const MAX_JOB_BYTES: usize = 64 * 1024;

/// One stand-in node.
struct Node {
    addr: SocketAddr,
    pending: u64,
    containers: &'static [&'static str],
    /// Number of jobs accepted since the start. A job id is such a number.
    jobs: AtomicU32,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["nodes"] => serve_nodes(|| {}),
        ["nodes", port, directory] => {
            let help = help(port);
            let served = serve_nodes(move || print_lines(&help));
            served.and_then(|()| fs::remove_dir_all(directory))
        }
        [router] => exec_router(router),
        _ => Err(io::Error::other("expected the path of the router, or `nodes`")),
    }
}

/// Replaces this process by the router, so that signals and the exit status are the router's. The nodes run in a
/// separate process group and exit with the router: they read the router's input, and Ctrl-C does not reach them.
fn exec_router(router: &str) -> io::Result<()> {
    let router = fs::canonicalize(router)?;
    let port = env::var("PORT").ok().filter(|port| !port.is_empty());
    let port = port.unwrap_or_else(|| "4000".to_owned());
    // A separate directory has no .env and no other ips.txt. The nodes remove it.
    let directory = env::temp_dir().join(format!("infernet-router-demo-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let mut nodes = Command::new(env::current_exe()?)
        .args(["nodes", &port])
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let (input, output) = (nodes.stdin.take(), nodes.stdout.take());
    let (Some(input), Some(output)) = (input, output) else {
        return Err(io::Error::other("both are piped"));
    };
    let list = BufReader::new(output).lines().take(NODES.len());
    let list: Vec<String> = list.collect::<Result<_, _>>()?;
    fs::write(directory.join("ips.txt"), list.join("\n") + "\n")?;
    Err(Command::new(router)
        .current_dir(&directory)
        .env("PORT", &port)
        .stdin(Stdio::from(input))
        .exec())
}

/// Prints an ips.txt, serves the nodes, and returns when standard input closes. Calls `on_first_request` once, at the
/// first request of a router.
fn serve_nodes(on_first_request: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    let listeners = listeners()?;
    let mut stdout = io::stdout();
    for listener in &listeners {
        writeln!(stdout, "{}", listener.local_addr()?)?;
    }
    stdout.flush()?;
    let shared = Arc::new((Once::new(), on_first_request));
    for (listener, (pending, containers)) in listeners.into_iter().zip(NODES) {
        let shared = Arc::clone(&shared);
        let node = Arc::new(Node {
            addr: listener.local_addr()?,
            pending,
            containers,
            jobs: AtomicU32::new(0),
        });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.0.call_once(&shared.1);
                let node = Arc::clone(&node);
                thread::spawn(move || serve(&client, &node));
            }
        });
    }
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}

/// Binds one port that is free on all the addresses.
fn listeners() -> io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind((FIRST_NODE, 0))?;
    let port = first.local_addr()?.port();
    let others = (1..NODES.len()).map(|node| {
        let ip = Ipv4Addr::from_bits(FIRST_NODE.to_bits() + node as u32);
        TcpListener::bind(SocketAddr::from((ip, port)))
    });
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Responds to one request as infernet-node 1.4.0 does.
fn serve(client: &TcpStream, node: &Node) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut reader = BufReader::new(client);
    let (mut request, mut line, mut body_bytes) = (String::new(), String::new(), 0);
    reader.read_line(&mut request)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_bytes = value.trim().parse().unwrap_or_default();
        }
        line.clear();
    }
    // An unread body would make the kernel reset the connection.
    let mut body = vec![0; body_bytes.min(MAX_JOB_BYTES)];
    reader.read_exact(&mut body)?;
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = respond(method, target, &String::from_utf8_lossy(&body), node);
    write!(
        &mut &*client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn respond(method: &str, target: &str, body: &str, node: &Node) -> (&'static str, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let body = match (method, path, query.split_once('=')) {
        ("GET", "/info", _) => info(node),
        ("GET", "/resources", None) => resources(node, resource),
        ("GET", "/resources", Some(("model_id", id))) => {
            resources(node, |_, engine| support(engine, id.ends_with(MODEL_SUFFIX)))
        }
        ("POST", "/api/jobs", _) if node.containers.iter().any(|id| body.contains(&format!("\"{id}\""))) => {
            format!(r#"{{"id":"{}"}}"#, node.jobs.fetch_add(1, Ordering::Relaxed) + 1)
        }
        ("POST", "/api/jobs", _) => return ("400 Bad Request", r#"{"error":"Container not supported"}"#.to_owned()),
        ("GET", "/api/jobs", Some(("id", id))) => result(id, node),
        _ => return ("404 Not Found", r#"{"error":"not found"}"#.to_owned()),
    };
    ("200 OK", body)
}

/// The result of a job that this node accepted. Any other id has none.
fn result(id: &str, node: &Node) -> String {
    match id.parse() {
        Ok(number @ 1..) if number <= node.jobs.load(Ordering::Relaxed) => format!(
            r#"[{{"id":"{number}","result":{{"container":"hello-world","output":{{"message":"hello from {}"}}}},"status":"success"}}]"#,
            node.addr
        ),
        _ => "[]".to_owned(),
    }
}

fn info(node: &Node) -> String {
    let containers: Vec<String> = node
        .containers
        .iter()
        .map(|id| {
            format!(
                r#"{{"id":"{id}","description":"{id} container","external":true,"image":"ritualnetwork/{id}:latest"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version":"1.4.0","containers":[{}],"pending":{{"offchain":{},"onchain":0}},"chain":{{"enabled":false,"address":""}}}}"#,
        containers.join(","),
        node.pending
    )
}

/// The entries of the node's services, by container.
fn resources(node: &Node, entry: impl Fn(&str, &str) -> String) -> String {
    let services = ENGINES.iter().filter(|(id, _)| node.containers.contains(id));
    let entries: Vec<String> = services
        .map(|(id, engine)| format!(r#""{id}":{}"#, entry(id, engine)))
        .collect();
    format!("{{{}}}", entries.join(","))
}

/// An entry as infernet-ml 2.0.0 sends it, without the hardware.
fn resource(id: &str, engine: &str) -> String {
    format!(
        r#"{{"version":"0.1.0","service_id":"{id}","hardware_capabilities":[],"compute_capability":[{{"id":"ml","type":"{engine}","task":[],"models":[],"cached_models":[],"inference_engine":null,"inference_engine_version":null}}]}}"#
    )
}

fn support(engine: &str, is_onnx: bool) -> String {
    match (engine, is_onnx) {
        ("onnx", true) => r#"{"supported":true}"#.to_owned(),
        ("onnx", false) => r#"{"supported":false,"error":"expected an ONNX model"}"#.to_owned(),
        _ => r#"{"supported":false}"#.to_owned(),
    }
}

fn help(port: &str) -> String {
    let addr = match port {
        "0" => "127.0.0.1:PORT".to_owned(),
        port => format!("127.0.0.1:{port}"),
    };
    format!(
        "\nThree stand-in nodes: 7, 2 and 0 jobs pending. Try in another terminal:\n\n  \
         curl 'http://{addr}/api/v1/ips?container=hello-world'\n  \
         curl 'http://{addr}/api/v1/ips?container=hello-world&container=summarizer&n=1'\n  \
         curl http://{addr}/api/v1/containers\n  \
         curl http://{addr}/api/v1/resources\n  \
         curl 'http://{addr}/api/v1/resources?model_id=huggingface/Ritual-Net/iris-classification:iris.onnx'\n  \
         curl http://{addr}/metrics\n  \
         http://{addr}/status in a browser\n\n\
         A job, sent to the node that the router names first:\n\n  \
         node=$(curl -s 'http://{addr}/api/v1/ips?container=hello-world&n=1' | tr -d '[]\"')\n  \
         curl http://$node/api/jobs -H 'Content-Type: application/json' -d '{{\"containers\":[\"hello-world\"],\"data\":{{}}}}'\n  \
         curl \"http://$node/api/jobs?id=1\"\n\n\
         Ctrl-C stops router and nodes.\n"
    )
}

/// Prints to standard error, beside the router's log. The reader may have gone away.
fn print_lines(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

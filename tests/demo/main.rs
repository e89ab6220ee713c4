//! `make demo`: the router, whose path is the argument, against three stand-in nodes on loopback, and the curl lines to
//! try. Settings in the environment are the router's. With the argument `nodes`, the nodes alone, for a router that is
//! started elsewhere: they print an ips.txt and end when their input does.
//!
//! Standard library alone: `make demo` compiles this file by itself, without the dependencies of the tests.
#![allow(missing_docs, reason = "no library")]
#![allow(clippy::disallowed_methods, reason = "a stand-in starts threads of its own")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Once};
use std::time::Duration;
use std::{env, fs, thread};

/// Jobs pending and containers of each node.
const NODES: [(u64, &[&str]); 3] = [
    (7, &["hello-world", "summarizer"]),
    (2, &["hello-world"]),
    (0, &["hello-world", "classifier", "summarizer"]),
];

/// The services that tell what they can run, each with the engine that it runs models in. As with real nodes, one that
/// has no such endpoint is missing.
const ENGINES: [(&str, &str); 2] = [("classifier", "onnx"), ("summarizer", "hf_inference_client")];
/// The one kind of model that a service supports.
const MODEL_SUFFIX: &str = ".onnx";

/// All of 127.0.0.0/8 is this machine; the other nodes have the addresses that follow.
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// A client that sends nothing for so long is gone.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["nodes"] => serve_nodes(|| {}),
        ["nodes", port, directory] => {
            let help = help(port);
            let ended = serve_nodes(move || say(&help));
            ended.and_then(|()| fs::remove_dir_all(directory))
        }
        [router] => route(router),
        _ => Err(io::Error::other("expected the path of the router, or `nodes`")),
    }
}

/// Becomes the router, so that its signals and its exit status are the demo's. The nodes are a process of their own,
/// which ends when the router does: their input is the router's, and Ctrl-C does not reach them.
fn route(router: &str) -> io::Result<()> {
    let router = fs::canonicalize(router)?;
    let port = env::var("PORT").ok().filter(|port| !port.is_empty());
    let port = port.unwrap_or_else(|| "4000".to_owned());
    // A directory of its own: no .env, and no ips.txt but this one. The nodes remove it.
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

/// Prints an ips.txt, answers for the nodes, and ends when the input does. `when_asked` is called once, when a router has
/// asked for the first time: it serves by then.
fn serve_nodes(when_asked: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    let listeners = listeners()?;
    let mut stdout = io::stdout();
    for listener in &listeners {
        writeln!(stdout, "{}", listener.local_addr()?)?;
    }
    stdout.flush()?;
    let shared = Arc::new((Once::new(), when_asked));
    for (listener, (pending, containers)) in listeners.into_iter().zip(NODES) {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.0.call_once(&shared.1);
                thread::spawn(move || answer(client, pending, containers));
            }
        });
    }
    io::stdin().read_to_end(&mut Vec::new()).map(|_| ())
}

/// One port that is free on all the addresses.
fn listeners() -> io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind((FIRST_NODE, 0))?;
    let port = first.local_addr()?.port();
    let others = (1..NODES.len()).map(|node| {
        let ip = Ipv4Addr::from_bits(FIRST_NODE.to_bits() + node as u32);
        TcpListener::bind(SocketAddr::from((ip, port)))
    });
    std::iter::once(Ok(first)).chain(others).collect()
}

/// As a node of 1.4.0 does.
fn answer(client: TcpStream, pending: u64, containers: &[&str]) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut lines = BufReader::new(&client).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    // The rest of the head: what is not read would make the kernel reset the connection.
    lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .for_each(drop);
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match target.split_once("?model_id=").unwrap_or((target, "")) {
        ("/info", _) => ("200 OK", info(pending, containers)),
        ("/resources", "") => ("200 OK", resources(containers, resource)),
        ("/resources", model_id) => (
            "200 OK",
            resources(containers, |_, engine| {
                support(engine, model_id.ends_with(MODEL_SUFFIX))
            }),
        ),
        _ => ("404 Not Found", r#"{"error":"not found"}"#.to_owned()),
    };
    write!(
        &client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn info(pending: u64, containers: &[&str]) -> String {
    let containers: Vec<String> = containers
        .iter()
        .map(|id| {
            format!(
                r#"{{"id":"{id}","description":"{id} container","external":true,"image":"ritualnetwork/{id}:latest"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"version":"1.4.0","containers":[{}],"pending":{{"offchain":{pending},"onchain":0}},"chain":{{"enabled":false,"address":""}}}}"#,
        containers.join(",")
    )
}

/// What the services say, by container.
fn resources(containers: &[&str], say: impl Fn(&str, &str) -> String) -> String {
    let services = ENGINES.iter().filter(|(id, _)| containers.contains(id));
    let said: Vec<String> = services
        .map(|(id, engine)| format!(r#""{id}":{}"#, say(id, engine)))
        .collect();
    format!("{{{}}}", said.join(","))
}

/// As infernet-ml 2.0.0 has it, with the hardware left out.
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
         Ctrl-C ends it.\n"
    )
}

/// Beside the router's log, whose reader may go away.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

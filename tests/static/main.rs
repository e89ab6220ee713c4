//! `make test-static`: the static binary, named by the argument, in a root with nothing else in it but `resolv.conf`,
//! the lists and a certificate: it routes, resolves host names and calls an https node; `status` asks it there. Ends with 0 and a word where
//! `chroot` or port 53 is not permitted, as for users other than root.
#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod dns;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use dns::Dns;
use support::tls::TlsNode;
use support::{Fleet, Launch, PATIENCE};

/// Where distributions keep it.
const CHROOTS: [&str; 4] = ["/usr/sbin/chroot", "/usr/bin/chroot", "/sbin/chroot", "/bin/chroot"];

fn main() {
    let binary = std::env::args().nth(1).expect("the path of the static binary");
    let Some(chroot) = CHROOTS.into_iter().find(|path| may_chroot(path)) else {
        println!("skipped: no permission to chroot");
        return;
    };
    let dns = match Dns::start() {
        Ok(dns) => dns,
        Err(error) => {
            println!("skipped: no DNS stand-in on port 53: {error}");
            return;
        }
    };
    let fleet = Fleet::start(2);
    let tls = TlsNode::start_as(&["tls.test"]);
    dns.set("node.test", fleet.addr(0).ip());
    dns.set("tls.test", tls.addr().ip());
    let named = format!("node.test:{}", fleet.addr(0).port());
    let by_tls = format!("https://tls.test:{}", tls.addr().port());

    let launch = Launch::of(&binary)
        .ips(format!("{named}\n{}\n{by_tls}\n", fleet.addr(1)))
        .file("ca.pem", tls.ca_pem())
        .file("etc/resolv.conf", format!("nameserver {}\n", dns.ip()))
        .set("SSL_CERT_FILE", "/ca.pem")
        .in_empty_root(chroot);
    let router = launch.start();
    router.wait_line("serving on http://", PATIENCE);
    let mut listed = router.get("/api/v1/ips?container=hello-world&n=9").strings();
    listed.sort();
    assert_eq!(
        listed,
        [fleet.addr(1).to_string(), named],
        "nodes by address and by name"
    );
    let listed = router.get("/api/v1/ips?container=tls").strings();
    assert_eq!(listed, [&*by_tls], "a node by https");
    assert!(dns.asked() > 0, "names were looked up");
    let asks = Launch::of(binary)
        .set("PORT", router.addr().port())
        .in_empty_root(chroot);
    let told = asks.command().arg("status").output().expect("it runs");
    let table = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && table.contains(&by_tls), "{told:?}");
    router.signal(support::process::Signal::TERM);
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(0), "SIGTERM ends it with 0");
    println!("in an empty root the static binary routes, resolves host names and calls https nodes");
}

fn may_chroot(path: &str) -> bool {
    // The program behind is missing there, which chroot tells by 127; what is not permitted, by 125.
    let empty = tempfile::tempdir().expect("a temporary directory is available");
    Path::new(path).is_file()
        && Command::new(path)
            .arg(empty.path())
            .arg("/nothing")
            .output()
            .is_ok_and(|output| output.status.code() == Some(127))
}

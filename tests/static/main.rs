//! `make test-static`: runs the static binary of the argument in a root with only its own files. The binary routes,
//! resolves host names, calls an https node and responds to `status` there. It loads no NSS module that `nsswitch.conf`
//! names. `NSS_ROOT` is a directory with the modules and libraries of another release, as `dpkg-deb -x` unpacks them.
//! Exits with 0 and a message if the user may not use `chroot` or port 53, as users other than root.
#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod dns;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use dns::Dns;
use support::tls::TlsNode;
use support::{Fleet, Launch, PATIENCE};

/// Path of `chroot` in distributions.
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
    let fleet = Fleet::start(4);
    let tls = TlsNode::start_as(&["tls.test"]);
    dns.set("node.test", fleet.addr(0).ip());
    dns.set("tls.test", tls.addr().ip());
    // The built-in resolver uses the search domain and /etc/hosts.
    dns.set("short.fleet.test", fleet.addr(2).ip());
    let named = format!("node.test:{}", fleet.addr(0).port());
    let searched = format!("short:{}", fleet.addr(2).port());
    let in_hosts = format!("hosts-file.test:{}", fleet.addr(3).port());
    let by_tls = format!("https://tls.test:{}", tls.addr().port());

    let launch = Launch::of(&binary)
        .ips(format!(
            "{named}\n{}\n{by_tls}\n{searched}\n{in_hosts}\ngone.test\n",
            fleet.addr(1)
        ))
        .file("ca.pem", tls.ca_pem())
        .file(
            "etc/resolv.conf",
            format!("nameserver {}\nsearch fleet.test\noptions ndots:2\n", dns.ip()),
        )
        .file("etc/hosts", format!("{} hosts-file.test\n", fleet.addr(3).ip()))
        .file("etc/nsswitch.conf", NSSWITCH)
        .set("SSL_CERT_FILE", "/ca.pem")
        .in_empty_root(chroot);
    add_modules(launch.directory());
    let router = launch.start();
    router.wait_line("serving: accepting requests", PATIENCE);
    router.wait_line("gone.test", PATIENCE);
    let mut listed = router.get("/api/v1/ips?container=hello-world&n=9").strings();
    listed.sort();
    let expected = [fleet.addr(1).to_string(), in_hosts, named, searched];
    assert_eq!(listed, expected, "nodes by address, /etc/hosts, DNS and search domain");
    let listed = router.get("/api/v1/ips?container=tls").strings();
    assert_eq!(listed, [&*by_tls], "a node by https");
    assert!(dns.asked() > 0, "no name was resolved");
    let asks = Launch::of(binary)
        .set("PORT", router.addr().port())
        .in_empty_root(chroot);
    let status = asks.command().arg("status").output().expect("output of status");
    let table = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && table.contains(&by_tls), "{status:?}");
    router.signal(support::process::Signal::TERM);
    assert_eq!(router.wait_exit(PATIENCE).code(), Some(0), "exit status after SIGTERM");
    println!(
        "in a separate root the static binary routes, resolves host names, calls https nodes and loads no NSS module"
    );
}

/// Lists modules before `files` and `dns`: a resolver that loads modules does so at the first lookup.
const NSSWITCH: &str = "hosts: trap mymachines mdns4_minimal resolve [!UNAVAIL=return] myhostname files dns\n";
/// A module that aborts the process that loads it.
const TRAP: &str = "__attribute__((constructor)) static void loaded(void) { __builtin_trap(); }\n";
/// Directories where a static glibc searches for modules.
const MODULE_DIRS: [&str; 4] = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];

/// Adds the aborting module, and the modules of another release if `NSS_ROOT` is set.
fn add_modules(root: &Path) {
    if let Some(release) = std::env::var_os("NSS_ROOT") {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(Path::new(&release).join("."))
            .arg(root)
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "{release:?} can be copied");
    } else {
        println!("not tested: the NSS modules of another release (NSS_ROOT)");
    }
    let source = root.join("trap.c");
    std::fs::write(&source, TRAP).expect("the directory is ours");
    for dir in MODULE_DIRS.map(|dir| root.join(dir)) {
        std::fs::create_dir_all(&dir).expect("the directory is ours");
        let module = dir.join("libnss_trap.so.2");
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-nostdlib", "-o"])
            .arg(module)
            .arg(&source)
            .status();
        if !compiler.is_ok_and(|status| status.success()) {
            return println!("not tested: a module that traps (no C compiler)");
        }
    }
}

fn may_chroot(path: &str) -> bool {
    // chroot exits with 127 if the program is missing, which is the case here, and with 125 without permission.
    let empty = tempfile::tempdir().expect("a temporary directory is available");
    Path::new(path).is_file()
        && Command::new(path)
            .arg(empty.path())
            .arg("/nothing")
            .output()
            .is_ok_and(|output| output.status.code() == Some(127))
}

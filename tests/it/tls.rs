//! Nodes with https, and on IPv6.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::launch;
use super::support::tls::{Leaf, TlsNode};
use super::support::v6::V6Node;
use super::support::{Behaviour, Explorer, Fleet, Listing, PATIENCE, Router, Signal};

fn runs_tls(router: &Router) -> Vec<String> {
    router.get("/api/v1/ips?container=tls").strings()
}

#[test]
fn https_node_with_listed_root_is_available() {
    let node = TlsNode::start();
    let by_name = format!("https://localhost:{}", node.addr().port());
    let list = format!("{}\n{by_name}\n", node.url());
    let launch = launch().ips(list).file("roots.pem", node.ca_pem());
    let router = launch.set("SSL_CERT_FILE", "roots.pem").start();
    let mut wanted = [node.url(), by_name];
    wanted.sort_unstable();
    router.until("both nodes are available", || {
        let mut nodes = runs_tls(&router);
        nodes.sort_unstable();
        nodes == wanted
    });
}

#[test]
fn https_node_with_unknown_root_is_down() {
    let node = TlsNode::start();
    let other = TlsNode::start();
    let unset = launch().ips(node.url()).start();
    let foreign = launch().ips(node.url()).file("roots.pem", other.ca_pem());
    let foreign = foreign.set("SSL_CERT_FILE", "roots.pem").start();
    // The stand-ins' authorities have the same name.
    for (router, why) in [
        (unset, "its issuer is not trusted"),
        (foreign, "its signature is not that of"),
    ] {
        let down = format!("node down:…node=\"{}\"…certificate rejected: {why}", node.url());
        router.wait_line(&down, PATIENCE);
        assert_eq!(runs_tls(&router), [""; 0]);
    }
    assert_eq!(node.answered(), 0);
}

#[test]
fn untrusted_issuer_costs_one_handshake_per_probe() {
    let node = TlsNode::start();
    let other = TlsNode::start();
    let launch = launch().ips(node.url()).file("roots.pem", other.ca_pem());
    let router = launch
        .set("SSL_CERT_FILE", "roots.pem")
        .set("REFRESH_INTERVAL", "0.5")
        .start();
    router.wait_line("node down:", PATIENCE);
    router.until("six handshakes have failed", || node.failed() >= 6);
    // Handshakes of a probe in flight, and one that finished between the two requests.
    let metrics = router.get("/metrics");
    let probes: u64 = metrics
        .text()
        .lines()
        .find_map(|line| {
            line.strip_prefix("infernet_router_probes_total{outcome=\"failed\"} ")?
                .parse()
                .ok()
        })
        .expect("probes are counted");
    assert!(
        node.failed() <= probes + 2,
        "{} handshakes, {probes} probes",
        node.failed()
    );
}

/// Starts a router that trusts the authority of the node.
fn trusting(node: &TlsNode) -> Router {
    let launch = launch().ips(node.url()).file("roots.pem", node.ca_pem());
    launch
        .set("SSL_CERT_FILE", "roots.pem")
        .set("REFRESH_INTERVAL", "0.5")
        .start()
}

#[test]
fn certificate_reason_is_logged_once() {
    let here = ["127.0.0.1"];
    for (node, why) in [
        (
            TlsNode::start_as(&["node.example"]),
            "it is for another name than the listed one",
        ),
        (TlsNode::start_with(&here, Leaf::Expired), "it has expired"),
        (
            TlsNode::start_with(&here, Leaf::SelfSignedAuthority),
            "it is self-signed with CA:TRUE, which may sign but not serve; make one with CA:FALSE",
        ),
        (TlsNode::start_with(&here, Leaf::ClientOnly), "it is not for servers"),
        (
            TlsNode::start_with(&here, Leaf::CommonNameOnly),
            "it names no host: add a subjectAltName",
        ),
    ] {
        let router = trusting(&node);
        router.wait_line(
            &format!("node down:…node=\"{}\"…certificate rejected: {why}", node.url()),
            PATIENCE,
        );
        let failed = node.failed();
        router.until("four more probes have failed", || node.failed() >= failed + 4);
        assert_eq!(router.count_lines(&node.url()), 1, "{:?}", router.log());
        assert_eq!((runs_tls(&router), node.answered()), (Vec::new(), 0));
    }
}

#[test]
fn changed_roots_are_loaded_unusable_file_is_ignored() {
    let (first, second) = (TlsNode::start(), TlsNode::start());
    let launch = launch().ips(format!("{}\n{}\n", first.url(), second.url()));
    let launch = launch
        .file("roots.pem", first.ca_pem())
        .set("SSL_CERT_FILE", "roots.pem");
    let file = launch.directory().join("roots.pem");
    let router = launch.set("REFRESH_INTERVAL", "0.5").start();
    router.until("the first node is available", || runs_tls(&router) == [first.url()]);
    std::fs::write(&file, format!("{}{}", first.ca_pem(), second.ca_pem())).expect("the directory is ours");
    router.until("both nodes are available", || runs_tls(&router).len() == 2);
    std::fs::write(&file, "no certificate").expect("the directory is ours");
    router.wait_line("roots rejected: last accepted roots stay in effect", PATIENCE);
    let responded = first.answered();
    router.until("the first node was probed again", || first.answered() >= responded + 2);
    assert_eq!(runs_tls(&router).len(), 2);
    assert_eq!(router.count_lines("roots rejected"), 1, "{:?}", router.log());
}

#[test]
fn sighup_reloads_roots() {
    let (first, second) = (TlsNode::start(), TlsNode::start());
    let launch = launch().ips(second.url()).file("roots.pem", first.ca_pem());
    let file = launch.directory().join("roots.pem");
    let router = launch
        .set("SSL_CERT_FILE", "roots.pem")
        .set("REFRESH_INTERVAL", "0.5")
        .start();
    router.wait_line("node down:", PATIENCE);
    std::fs::write(&file, second.ca_pem()).expect("the directory is ours");
    router.signal(Signal::HUP);
    router.wait_line("roots loaded: SSL_CERT_FILE read again", PATIENCE);
    router.until("the node is available", || runs_tls(&router) == [second.url()]);
}

#[test]
fn status_reports_expiry_of_certificates() {
    let soon = Duration::from_secs(13 * 86_400);
    let (soon, late) = (
        TlsNode::start_with(&["127.0.0.1"], Leaf::ExpiresIn(soon)),
        TlsNode::start(),
    );
    let launch = launch().ips(format!("{}\n{}\n", soon.url(), late.url()));
    let roots = format!("{}{}", soon.ca_pem(), late.ca_pem());
    let router = launch
        .file("roots.pem", roots)
        .set("SSL_CERT_FILE", "roots.pem")
        .start();
    router.until("both nodes are available", || runs_tls(&router).len() == 2);
    let report = router.get("/status.json").json();
    assert_eq!(report["totals"]["expiring_certificates"], 1, "{report}");
    let expires = |node: usize| {
        report["nodes"][node]["certificate_expires"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z'))
    };
    assert!(expires(0) && expires(1), "{report}");
    let page = router.get("/status");
    assert!(
        page.text()
            .contains("1 node with a certificate that expires within 14 days"),
        "{}",
        page.text()
    );
}

#[test]
fn certificate_that_expires_takes_node_down_despite_tickets() {
    // A busy machine may need longer to start the router than a short-lived certificate lives.
    for seconds in [4, 16, 64] {
        let node = TlsNode::start_with(&["127.0.0.1"], Leaf::ExpiresIn(Duration::from_secs(seconds)));
        let router = trusting(&node);
        router.until("the node has been probed", || node.answered() + node.failed() > 0);
        let expired = format!(
            "node down:…node=\"{}\"…certificate rejected: it has expired",
            node.url()
        );
        router.wait_line(&expired, PATIENCE + Duration::from_secs(seconds));
        assert_eq!(runs_tls(&router), [""; 0]);
        if node.answered() > 0 {
            return;
        }
    }
    panic!("each certificate expired before the first probe");
}

#[test]
fn listed_self_signed_certificate_is_trusted() {
    let node = TlsNode::start_with(&["127.0.0.1"], Leaf::SelfSigned);
    let router = trusting(&node);
    router.until("the node is available", || runs_tls(&router) == [node.url()]);
}

#[test]
fn redirect_to_https_of_same_host_is_followed() {
    let node = TlsNode::start();
    let plain = Fleet::on_localhost();
    plain.set(0, Behaviour::Redirect(format!("{}/info", node.url())));
    let launch = launch().ips(plain.list()).file("roots.pem", node.ca_pem());
    let router = launch.set("SSL_CERT_FILE", "roots.pem").start();
    router.until("the node is available", || {
        runs_tls(&router) == [plain.addr(0).to_string()]
    });
    let told = format!("node redirects:…{}/info", node.url());
    router.wait_line(&told, PATIENCE);
}

#[test]
fn unusable_cert_file_is_a_warning() {
    for (file, reason) in [
        ("missing.pem", "no such file"),
        ("empty.pem", "expected certificates in PEM form"),
        ("cut.pem", "expected certificates in PEM form"),
        ("zeros.pem", "expected certificates in PEM form"),
        (".", "a directory"),
    ] {
        let launch = launch()
            .file("empty.pem", "no certificate\n")
            .file("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB")
            .file(
                "zeros.pem",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )
            .set("SSL_CERT_FILE", file);
        let router = launch.start();
        assert_eq!(router.get("/health").status, 200);
        let line = router.wait_line("roots rejected: last accepted roots stay in effect", PATIENCE);
        assert!(line.contains(&format!("file={file:?} reason=\"{reason}")), "{line}");
    }
}

#[test]
fn http_and_tls_mismatch_has_a_reason() {
    let node = TlsNode::start();
    let plain = V6Node::start_at(Ipv4Addr::LOCALHOST.into()).expect("a port is free");
    let list = format!("{}\nhttps://{}\n", node.addr(), plain.addr());
    let router = launch().ips(list).start();
    let told = format!("node down:…node=\"{}\"…not an HTTP response", node.addr());
    router.wait_line(&told, PATIENCE);
    let told = format!("node down:…node=\"https://{}\"…not a TLS response", plain.addr());
    router.wait_line(&told, PATIENCE);
}

#[test]
fn ipv6_nodes_of_both_lists_are_probed() {
    let (Some(listed), Some(named)) = (V6Node::start(), V6Node::start()) else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let explorer = Explorer::start(Listing::Nodes(vec![named.addr(), listed.addr()]));
    // Clients get the address in its listed spelling.
    let line = format!("http://[0:0:0:0:0:0:0:1]:{}", listed.addr().port());
    let router = launch().ips(&line).set("API_URL", explorer.url()).start();
    let mut wanted = [line, named.addr().to_string()];
    wanted.sort_unstable();
    router.until("both nodes are available", || {
        let mut nodes = router.get("/api/v1/ips?container=v6").strings();
        nodes.sort_unstable();
        nodes == wanted
    });
}

#[test]
fn expiring_certificate_is_a_problem_on_status() {
    let lifetime = Duration::from_secs(9 * 86_400 + 3_600);
    let node = TlsNode::start_with(&["127.0.0.1"], Leaf::ExpiresIn(lifetime));
    let launch = launch().ips(node.url()).file("roots.pem", node.ca_pem());
    let router = launch.set("SSL_CERT_FILE", "roots.pem").start();
    router.until("the node is available", || runs_tls(&router) == [node.url()]);
    let report = router.get("/status.json").json();
    assert_eq!(report["totals"]["expiring_certificates"], 1, "{report}");
    assert_eq!(report["nodes"][0]["certificate_days"], 9, "{report}");
    let page = router.get("/status");
    for text in [
        "1 node with a certificate that expires within 14 days",
        "certificate expires in 9 days",
    ] {
        assert!(page.text().contains(text), "{text}: {}", page.text());
    }
}

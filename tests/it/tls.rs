//! Nodes behind https, and on IPv6.

use super::launch;
use super::support::tls::TlsNode;
use super::support::v6::V6Node;
use super::support::{Explorer, Listing, PATIENCE, Router};

fn runs_tls(router: &Router) -> Vec<String> {
    router.get("/api/v1/ips?container=tls").strings()
}

#[test]
fn an_https_node_is_believed_when_ssl_cert_file_names_its_root() {
    let node = TlsNode::start();
    let by_name = format!("https://localhost:{}", node.addr().port());
    let list = format!("{}\n{by_name}\n", node.url());
    let launch = launch().ips(list).file("roots.pem", node.ca_pem());
    let router = launch.set("SSL_CERT_FILE", "roots.pem").start();
    let mut wanted = [node.url(), by_name];
    wanted.sort_unstable();
    router.until("both are available", || {
        let mut nodes = runs_tls(&router);
        nodes.sort_unstable();
        nodes == wanted
    });
}

#[test]
fn an_https_node_whose_root_nobody_named_is_refused() {
    let node = TlsNode::start();
    let other = TlsNode::start();
    let unset = launch().ips(node.url()).start();
    let foreign = launch().ips(node.url()).file("roots.pem", other.ca_pem());
    let foreign = foreign.set("SSL_CERT_FILE", "roots.pem").start();
    for router in [unset, foreign] {
        let down = format!("node \"{}\" is down: invalid peer certificate: ", node.url());
        router.wait_line(&down, PATIENCE);
        assert_eq!(runs_tls(&router), [""; 0]);
    }
    assert_eq!(node.answered(), 0);
}

#[test]
fn the_built_in_roots_are_tried_beside_those_of_one_s_own() {
    let node = TlsNode::start();
    let other = TlsNode::start();
    let launch = launch().ips(node.url()).file("roots.pem", other.ca_pem());
    let router = launch
        .set("SSL_CERT_FILE", "roots.pem")
        .set("REFRESH_INTERVAL", 3600)
        .start();
    // A probe and its recheck, each with a connection for either set of roots.
    router.until("each probe was refused twice", || node.failed() == 4);
    assert_eq!(router.count_lines("is down"), 1);
}

#[test]
fn an_https_node_with_the_certificate_of_another_is_refused() {
    let node = TlsNode::start_as(&["node.example"]);
    let launch = launch().ips(node.url()).file("roots.pem", node.ca_pem());
    let router = launch.set("SSL_CERT_FILE", "roots.pem").start();
    router.wait_line(&format!("node \"{}\" is down: ", node.url()), PATIENCE);
    assert_eq!((runs_tls(&router), node.answered()), (Vec::new(), 0));
}

#[test]
fn roots_that_are_of_no_use_are_a_warning() {
    for (file, reason) in [
        ("missing.pem", "No such file"),
        ("empty.pem", "expected certificates in PEM form"),
        (".", "Is a directory"),
    ] {
        let launch = launch()
            .file("empty.pem", "no certificate\n")
            .set("SSL_CERT_FILE", file);
        let router = launch.start();
        assert_eq!(router.get("/health").status, 200);
        let line = router.wait_line("SSL_CERT_FILE=", PATIENCE);
        assert!(line.contains(&format!("SSL_CERT_FILE={file:?}: {reason}")), "{line}");
        assert!(line.contains("built-in roots alone"), "{line}");
    }
}

#[test]
fn plain_http_to_an_https_port_and_the_reverse_are_failures() {
    let node = TlsNode::start();
    let plain = super::Fleet::start(1);
    let list = format!("{}\nhttps://{}\n", node.addr(), plain.addr(0));
    let router = launch().ips(list).start();
    router.wait_line(&format!("node \"{}\" is down: ", node.addr()), PATIENCE);
    router.wait_line(&format!("node \"https://{}\" is down: ", plain.addr(0)), PATIENCE);
}

#[test]
fn ipv6_nodes_are_asked_whichever_list_has_them() {
    let (Some(listed), Some(named)) = (V6Node::start(), V6Node::start()) else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let explorer = Explorer::start(Listing::Nodes(vec![named.addr(), listed.addr()]));
    // In a spelling of its own, which is what clients get.
    let line = format!("http://[0:0:0:0:0:0:0:1]:{}", listed.addr().port());
    let router = launch().ips(&line).set("API_URL", explorer.url()).start();
    let mut wanted = [line, named.addr().to_string()];
    wanted.sort_unstable();
    router.until("both are available", || {
        let mut nodes = router.get("/api/v1/ips?container=v6").strings();
        nodes.sort_unstable();
        nodes == wanted
    });
}

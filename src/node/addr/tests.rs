//! Valid and invalid forms of an address.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

fn addr(text: &str) -> NodeAddr {
    NodeAddr::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

#[test]
fn each_listed_form_has_its_url() {
    for (text, url) in [
        ("1.2.3.4:4000", "http://1.2.3.4:4000/info"),
        ("1.2.3.4", "http://1.2.3.4:80/info"),
        ("[2001:DB8::1]:4000", "http://[2001:db8::1]:4000/info"),
        ("[::1]", "http://[::1]:80/info"),
        ("[::ffff:1.2.3.4]:1", "http://1.2.3.4:1/info"),
        ("node.example", "http://node.example:80/info"),
        ("node-1_a:65535", "http://node-1_a:65535/info"),
        ("HTTP://Node.Example", "http://node.example:80/info"),
        ("https://node.example", "https://node.example:443/info"),
        ("https://[::1]", "https://[::1]:443/info"),
        ("https://1.2.3.4:1", "https://1.2.3.4:1/info"),
        ("node.example.", "http://node.example.:80/info"),
        ("3com.1a", "http://3com.1a:80/info"),
        ("gateway.example/node-7", "http://gateway.example:80/node-7/info"),
        (
            "https://[::1]:1/A/%20;b=c/infos",
            "https://[::1]:1/A/%20;b=c/infos/info",
        ),
    ] {
        assert_eq!(addr(text).url() + "/info", url);
        assert_eq!(addr(text).to_string(), text);
        url.parse::<ureq::http::Uri>().expect("ureq takes the URL");
    }
}

#[test]
fn model_id_adds_no_parameter() {
    let node = addr("a:1");
    assert_eq!(
        node.support_url("a/b:c.d-e_f~,@=+&#?%"),
        "http://a:1/resources?model_id=a%2Fb%3Ac.d-e_f~%2C%40%3D%2B%26%23%3F%25"
    );
}

#[test]
fn trailing_slash_is_dropped() {
    for (text, listed) in [
        ("a/", "a"),
        ("http://a:80/", "http://a:80"),
        ("https://[::1]/", "https://[::1]"),
        ("a/b/", "a/b"),
    ] {
        assert_eq!(addr(text).as_listed(), listed);
    }
}

#[test]
fn invalid_addresses_have_distinct_errors() {
    for (text, wanted) in [
        ("", AddrError::NO_HOST),
        (":80", AddrError::NO_HOST),
        ("http://", AddrError::NO_HOST),
        ("ftp://a", AddrError::SCHEME),
        ("a//", AddrError::PATH),
        ("a///", AddrError::PATH),
        ("a/b//c", AddrError::PATH),
        ("a/ ", AddrError::PATH),
        ("a/.", AddrError::PATH),
        ("a/../b", AddrError::PATH),
        ("a/%2e%2E/b", AddrError::PATH),
        ("a/b%2Fc", AddrError::PATH),
        ("a/b%2fc", AddrError::PATH),
        ("a/%", AddrError::PATH),
        ("a/%2", AddrError::PATH),
        ("a/%x1", AddrError::PATH),
        ("a/ä", AddrError::PATH),
        ("a/b\"", AddrError::PATH),
        ("a/b\\c", AddrError::PATH),
        ("http://a/info", AddrError::INFO_PATH),
        ("a/node-7/info/", AddrError::INFO_PATH),
        ("http:/a", AddrError::PORT),
        ("a/b?c", AddrError::QUERY),
        ("a\\b", AddrError::PATH),
        ("a?b", AddrError::QUERY),
        ("me@a", AddrError::USER),
        ("http://me:pw@a:80", AddrError::USER),
        ("a:", AddrError::PORT),
        ("a:0", AddrError::PORT),
        ("a:65536", AddrError::PORT),
        ("a:+80", AddrError::PORT),
        ("a:-1", AddrError::PORT),
        ("a: 80", AddrError::PORT),
        ("a:000080", AddrError::PORT),
        ("a:٣", AddrError::PORT),
        ("::1", AddrError::BARE_IPV6),
        ("1.2.3.4:80:90", AddrError::BARE_IPV6),
        ("[::1", AddrError::IPV6),
        ("[]", AddrError::IPV6),
        ("[1.2.3.4]:80", AddrError::IPV6),
        ("[::1]80", AddrError::IPV6),
        ("[::1]]", AddrError::IPV6),
        ("[::1]:0", AddrError::PORT),
        ("[fe80::1%eth0]:80", AddrError::ZONE),
        ("1.2.3.999", AddrError::IPV4),
        ("1.2.3", AddrError::IPV4),
        ("01.2.3.4", AddrError::IPV4),
        ("127.1.", AddrError::IPV4),
        ("0x7f000001", AddrError::IPV4),
        ("node.7", AddrError::IPV4),
        ("4000", AddrError::IPV4),
        ("a b", AddrError::HOST_NAME),
        ("-a", AddrError::HOST_NAME),
        ("a-", AddrError::HOST_NAME),
        ("a..b", AddrError::HOST_NAME),
        (".a", AddrError::HOST_NAME),
        (".", AddrError::HOST_NAME),
        ("näh", AddrError::HOST_NAME),
        ("a#b", AddrError::PATH),
        ("a\0", AddrError::HOST_NAME),
        ("a]", AddrError::HOST_NAME),
    ] {
        assert_eq!(NodeAddr::parse(text), Err(wanted), "{text:?}");
        assert!(wanted.to_string().starts_with("expected "));
    }
}

#[test]
fn spellings_of_one_node_are_equal() {
    for (a, b) in [
        ("Node.Example", "http://node.example:80"),
        ("https://a", "HTTPS://A:443"),
        ("[::1]:4000", "[0:0:0:0:0:0:0:1]:04000"),
        ("[::ffff:1.2.3.4]", "1.2.3.4"),
        ("A:80/b", "http://a/b/"),
    ] {
        assert_eq!(addr(a), addr(b));
        assert_eq!(HashSet::from([addr(a), addr(b)]).len(), 1);
    }
    for (a, b) in [
        ("a", "https://a:80"),
        ("a:1", "a:2"),
        ("a", "b"),
        ("a", "a/b"),
        ("a/b", "a/B"),
    ] {
        assert_ne!(addr(a), addr(b));
    }
}

proptest! {
    #[test]
    fn parsed_text_parses_again(text in "\\PC*|[a:./@0-9\\[\\]%x-]{0,12}|a/[a-z0-9./%~;=@-]{0,12}") {
        if let Ok(node) = NodeAddr::parse(&text) {
            prop_assert_eq!(node.as_listed(), text.strip_suffix('/').unwrap_or(&text));
            prop_assert_eq!(&addr(node.as_listed()), &node);
            prop_assert!(node.url().parse::<ureq::http::Uri>().is_ok());
        }
    }
}

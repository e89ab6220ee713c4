use proptest::prelude::*;

use super::*;

fn page(query: &str) -> (u32, u32) {
    let page = ips(&format!("container=a&{query}")).expect(query).page;
    (page.n, page.offset)
}

fn error(query: &str) -> String {
    ips(query).expect_err(query).0
}

fn status_error(query: &str) -> String {
    status(query).expect_err(query).0
}

#[test]
fn numbers_have_defaults_and_limits() {
    for (query, expected) in [
        ("", (3, 0)),
        ("n=&offset=", (3, 0)),
        ("n=2&offset=5", (2, 5)),
        ("n=0", (0, 0)),
        ("n=1000", (1000, 0)),
        ("n=1001", (1000, 0)),
        ("n=007", (7, 0)),
        ("n=9223372036854775807&offset=9223372036854775807", (1000, u32::MAX)),
        ("n=99999999999999999999&offset=99999999999999999999", (1000, u32::MAX)),
        ("offset=4294967295", (3, u32::MAX)),
        ("offset=4294967296", (3, u32::MAX)),
        ("n=1&n=2&offset=3&offset=4", (1, 3)),
        ("n=1&n=x", (1, 0)),
        ("n=&n=2", (3, 0)),
    ] {
        assert_eq!(page(query), expected, "{query}");
    }
}

#[test]
fn invalid_numbers_are_named_with_expected_form() {
    let expected = "expected a whole number of at most 20 digits";
    for value in ["x", "-1", "1.0", "1e3", "0x10", "100000000000000000000", "٣"] {
        assert_eq!(
            error(&format!("container=a&n={value}")),
            format!("n=\"{value}\": {expected}")
        );
    }
    assert_eq!(error("container=a&offset=+1"), format!("offset=\" 1\": {expected}"));
    assert_eq!(error("container=a&n=x&n=1"), format!("n=\"x\": {expected}"));
    assert_eq!(error("container=a&n=%00"), format!("n=\"\\0\": {expected}"));
    let long = format!("n=\"{}\"…: {expected}", "x".repeat(64));
    assert_eq!(error(&format!("container=a&n={}", "x".repeat(65))), long);
}

#[test]
fn containers_are_distinct_and_sorted() {
    let query = ips("container=b&container=a&container=b&container=&Container=c&container").expect("a query");
    assert_eq!(query.containers, ["a", "b"]);
    let query = ips("container[]=b&container%5B%5D=a&container=c").expect("a query");
    assert_eq!(query.containers, ["a", "b", "c"]);
    for none in ["", "n=1", "container=", "container", "container[]="] {
        assert_eq!(error(none), "No containers specified", "{none}");
    }
    assert!(ips(&["container=a"; 64].join("&")).is_ok());
    for name in ["container=a", "container[]=a"] {
        let many = [name; 65].join("&");
        assert_eq!(error(&many), "container: expected at most 64 of them, not 65");
    }
}

#[test]
fn encoded_values_are_decoded_as_utf8() {
    let query = ips("container=a%2Fb&container=a+b&container=%C3%A4&container=50%&co%6Etainer=x").expect("a query");
    assert_eq!(query.containers, ["50%", "a b", "a/b", "x", "ä"]);
    assert_eq!(error("container=%ff"), "container=%ff: expected UTF-8");
    assert_eq!(error("container=a&%ff=1"), "%ff=1: expected UTF-8");
}

#[test]
fn containers_page_has_all_without_n() {
    assert_eq!(containers(""), Ok(Page { n: u32::MAX, offset: 0 }));
    assert_eq!(containers("n=2000&offset=3"), Ok(Page { n: 1000, offset: 3 }));
    assert!(containers("n=x").is_err());
}

#[test]
fn resources_take_containers_and_one_model_id() {
    let query = resources("").expect("a query");
    assert_eq!((query.containers, query.model_id), (Vec::new(), None));
    assert_eq!(query.page, Page { n: 100, offset: 0 });
    assert_eq!(resources("container[]=a").expect("a query").containers, ["a"]);
    let id = |query: &str| resources(query).expect("a query").model_id;
    assert_eq!(id("model_id=&container=a"), None);
    let real = "huggingface/Ritual-Net/iris:iris.onnx";
    assert_eq!(
        id("model_id=huggingface/Ritual-Net/iris:iris.onnx").as_deref(),
        Some(real)
    );
    assert_eq!(id("model_id=a%2Fb+c=d%40~,").as_deref(), Some("a/b+c=d@~,"));
    let longest = "a".repeat(256);
    assert_eq!(id(&format!("model_id={longest}")), Some(longest));
}

#[test]
fn invalid_model_ids_are_rejected() {
    let error = |query: &str| resources(query).expect_err(query).0;
    let expected = "expected 1 to 256 bytes of A-Za-z0-9._-/:,@=+~";
    assert_eq!(error("model_id=a%26b=c"), format!("model_id=\"a&b=c\": {expected}"));
    assert!(error(&format!("model_id={}", "a".repeat(257))).ends_with(expected));
    for other in ["%20", "%0a", "%3F", "%23", "%25", "%C3%A4", "'", "a%5Cb", "%00"] {
        assert!(error(&format!("model_id={other}")).ends_with(expected), "{other}");
    }
    assert_eq!(error("model_id=a&model_id=b"), "model_id=\"b\": expected at most once");
    assert_eq!(error("model_id=%ff"), "model_id=%ff: expected UTF-8");
}

#[test]
fn empty_status_parameters_count_as_absent() {
    let expected = Filter {
        n: 100,
        ..Filter::default()
    };
    for query in ["", "state=&container=&q=&n=&offset=&refresh=&x=1"] {
        assert_eq!(status(query).as_ref(), Ok(&expected), "{query}");
    }
}

#[test]
fn status_filters_are_read() {
    let query = status("state=down&container[]=a%2Fb&q=10.0.&n=5000&offset=7&refresh=off").expect("a query");
    let filter = Filter {
        state: Some(NodeState::Down),
        container: Some("a/b".to_owned()),
        part: Some("10.0.".to_owned()),
        n: 1_000,
        offset: 7,
        is_paused: true,
    };
    assert_eq!(query, filter);
}

#[test]
fn invalid_status_parameters_are_named() {
    assert_eq!(
        status_error("state=broken"),
        "state=\"broken\": expected new, up, suspect, down, limited or doubted"
    );
    assert_eq!(status_error("state=up&state=up"), "state=\"up\": expected at most once");
    assert_eq!(status_error("refresh=1"), "refresh=\"1\": expected on or off");
    assert!(status_error("n=x").starts_with("n=\"x\": expected a whole number"));
    assert_eq!(status_error("q=%ff"), "q=%ff: expected UTF-8");
    assert!(status(&format!("q={}", "a".repeat(MAX_FILTER_BYTES))).is_ok());
    let long = format!("q={}", "a".repeat(MAX_FILTER_BYTES + 1));
    assert!(status_error(&long).ends_with("expected at most 256 bytes"));
}

proptest! {
    #[test]
    fn never_panics(query in ".*") {
        let _ = (ips(&query), resources(&query), containers(&query), status(&query));
    }

    #[test]
    fn encoded_containers_are_found(ids in prop::collection::btree_set(".{1,20}", 1..10)) {
        use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
        let encode = |id: &String| percent_encode(id.as_bytes(), NON_ALPHANUMERIC).to_string();
        let query: Vec<String> = ids.iter().map(|id| format!("container={}", encode(id))).collect();
        prop_assert_eq!(ips(&query.join("&")).expect("a query").containers, ids.into_iter().collect::<Vec<_>>());
    }
}

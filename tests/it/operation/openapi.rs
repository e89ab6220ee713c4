//! `/openapi.json` compared with the responses of the router.

use serde_json::{Map, Value};

use super::{launch, serving};
use crate::support::http::{self, Answer, Connection};
use crate::support::{Explorer, Fleet, Listing, Router};

const PATHS: [&str; 9] = [
    "/",
    "/api/v1/containers",
    "/api/v1/ips",
    "/api/v1/resources",
    "/health",
    "/metrics",
    "/openapi.json",
    "/status",
    "/status.json",
];

fn document(router: &Router) -> Value {
    router.get("/openapi.json").json()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// The target of a `$ref`, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else {
        return value;
    };
    let pointer = reference.strip_prefix('#').expect("within the document");
    document.pointer(pointer).expect("what is referred to")
}

/// Panics if the document does not have the response for the operation.
fn check(document: &Value, path: &str, method: &str, answer: &Answer) {
    let at = format!("{method} {path}: {answer:?}");
    let responses = &document["paths"][path][method.to_ascii_lowercase()]["responses"];
    let response = resolved(document, &responses[answer.status.to_string()]);
    assert!(response.is_object(), "not documented: {at}");
    if let Some(content) = response["content"].as_object() {
        let kind = answer.header("Content-Type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        assert!(content.contains_key(kind), "{kind} is not documented: {at}");
    }
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let is_required = resolved(document, header)["required"] == true;
        assert!(!is_required || answer.header(name).is_some(), "no {name}: {at}");
    }
    if answer.status >= 400 && method != "HEAD" {
        let error = answer.json();
        assert!(error["error"].is_string() && object(&error).len() == 1, "{at}");
    }
}

#[test]
fn document_version_is_the_router_version() {
    let document = document(&serving(launch()));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn document_has_every_endpoint_and_method() {
    let document = document(&serving(launch()));
    let mut paths: Vec<&String> = object(&document["paths"]).keys().collect();
    paths.sort();
    assert_eq!(paths, PATHS);
    for path in PATHS {
        let mut methods: Vec<&String> = object(&document["paths"][path]).keys().collect();
        methods.sort();
        assert_eq!(methods, ["get", "head", "options"], "{path}");
    }
}

#[test]
fn every_path_responds_as_documented() {
    let fleet = Fleet::start(2);
    let launch = launch().ips(fleet.list()).set("RESOURCES_INTERVAL", 600);
    let router = serving(launch.set("RATELIMIT_REQS_PER_MIN", 1000));
    let document = document(&router);
    for path in PATHS {
        let target = format!("{path}?container=hello-world");
        for (method, status) in [("GET", 200), ("HEAD", 200), ("OPTIONS", 204)] {
            let answer = http::call(router.addr(), method, &target);
            assert_eq!(answer.status, status, "{method} {path}");
            check(&document, path, method, &answer);
        }
    }
}

/// Panics if the value has a key that its schema does not document, lacks a required key, or has another value than the
/// schema lists.
fn check_value(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolved(document, schema);
    let options = schema["oneOf"].as_array().into_iter().flatten();
    let schema = options.last().map_or(schema, |schema| resolved(document, schema));
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at}: {value} is not documented");
    }
    for item in value.as_array().into_iter().flatten() {
        check_value(document, &schema["items"], item, at);
    }
    let is_free = schema
        .get("properties")
        .or(schema.get("additionalProperties"))
        .is_none();
    let Some(fields) = value.as_object().filter(|_| !is_free) else {
        return;
    };
    for key in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(key.as_str().unwrap_or_default()), "{at}: no {key}");
    }
    for (key, value) in fields {
        let at = format!("{at}.{key}");
        let documented = schema["properties"].get(key).or(schema.get("additionalProperties"));
        let documented = documented.filter(|schema| schema.is_object());
        let schema = documented.unwrap_or_else(|| panic!("{at} is not documented"));
        check_value(document, schema, value, &at);
    }
}

#[test]
fn json_bodies_match_their_schemas() {
    let fleet = Fleet::start(3);
    let list = format!("{}no address\n", fleet.list());
    let explorer = Explorer::start(Listing::Nodes(Vec::new()));
    let launch = launch().ips(list).set("RESOURCES_INTERVAL", 600);
    let router = serving(launch.set("API_URL", explorer.url()));
    let document = document(&router);
    for path in PATHS {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        let answer = router.get(&format!("{path}?container=hello-world"));
        if let Some(content) = content.get("application/json") {
            check_value(&document, &content["schema"], &answer.json(), path);
        }
    }
}

#[test]
fn every_path_rejects_as_documented() {
    let router = serving(launch().set("METRICS_FROM", "192.0.2.1"));
    let document = document(&router);
    let long = "a".repeat(10_000);
    for path in PATHS {
        for method in ["GET", "HEAD", "OPTIONS"] {
            for (head, status) in [
                (format!("{method} {path} HTTP/2.0\r\nHost: a\r\n\r\n"), 505),
                (format!("{method} {path}?{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
                (format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
                (format!("{method} {path} HTTP/1.1\r\n\r\n"), 400),
                (
                    format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"),
                    413,
                ),
            ] {
                let mut connection = Connection::open(router.addr());
                connection.send(head);
                let answer = connection.receive();
                assert_eq!(answer.status, status, "{method} {path}");
                check(&document, path, method, &answer);
            }
        }
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let untrusted = Connection::from([127, 0, 0, 2].into(), router.addr());
        let hidden = untrusted.close_with(method, "/metrics", &[]);
        assert_eq!(hidden.status, 404);
        check(&document, "/metrics", method, &hidden);
    }
}

#[test]
fn invalid_query_and_limit_match_document() {
    let router = serving(launch().set("RATELIMIT_REQS_PER_MIN", 3));
    let document = document(&router);
    let ips = "/api/v1/ips";
    for (target, status) in [
        ("/api/v1/ips", 400),
        ("/api/v1/ips?container=a&n=-1", 400),
        ("/api/v1/ips?container=a&n=99999999999999999999", 200),
        ("/api/v1/ips?container=a", 429),
    ] {
        let answer = router.get(target);
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.header("RateLimit-Limit").is_some());
        check(&document, ips, "GET", &answer);
    }
    let head = http::call(router.addr(), "HEAD", ips);
    assert_eq!(head.status, 429);
    check(&document, ips, "HEAD", &head);
}

#[test]
fn empty_parameters_are_documented_and_served() {
    let router = serving(launch());
    let document = document(&router);
    let path = "/status";
    let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("a list");
    for parameter in parameters {
        let parameter = resolved(&document, parameter);
        let schema = &parameter["schema"];
        let is_empty_allowed = [&schema["enum"], &schema["anyOf"]].iter().any(|forms| {
            let forms = forms.as_array().map_or(&[][..], Vec::as_slice);
            forms.iter().any(|form| *form == "" || form["const"] == "")
        });
        let name = parameter["name"].as_str().expect("a name");
        assert!(is_empty_allowed || schema["type"] == "string", "{name}: {schema}");
        assert_eq!(router.get(&format!("{path}?{name}=")).status, 200, "{name}");
    }
    assert_eq!(parameters.len(), 6);
    check(
        &document,
        "/api/v1/containers",
        "GET",
        &router.get("/api/v1/containers?n=x"),
    );
}

#[test]
fn rejected_resources_match_document() {
    let path = "/api/v1/resources";
    for (interval, limit, query, status) in [
        (0, 0, "", 404),
        (600, 0, "?model_id=%20", 400),
        (600, 9, "?model_id=a", 200),
        (600, 1, "?n=0", 429),
    ] {
        let launch = launch().set("RESOURCES_INTERVAL", interval);
        let router = serving(launch.set("RATELIMIT_REQS_PER_MIN", limit));
        let document = document(&router);
        if status == 429 {
            router.get(path);
        }
        for method in ["GET", "HEAD"] {
            let answer = http::call(router.addr(), method, &format!("{path}{query}"));
            assert_eq!(answer.status, status, "{method} {query}");
            check(&document, path, method, &answer);
        }
    }
}

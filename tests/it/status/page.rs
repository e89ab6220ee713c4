//! `/status`: the report as a page. Untrusted text stays text.

use serde_json::json;

use super::{info, quick, wait_state};
use crate::support::{Behaviour, Explorer, Fleet, Listing, Router};
use crate::{launch, wait_available};

/// A hostile text, and the same text as the page shows it.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
const ESCAPED: &str = "&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;&#62;&#60;img src=x onerror=alert(1)&#62;";
/// Maximum size of the page without its rows.
const MAX_BYTES: usize = 20 * 1024;

fn page(router: &Router, query: &str) -> String {
    let answer = router.get(&format!("/status{query}"));
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    assert_eq!(answer.header("Content-Security-Policy"), Some(policy));
    let page = answer.text().to_owned();
    assert_harmless(&page);
    page
}

/// Asserts that the page has no script, loads nothing, shows untrusted text as text, and is short.
#[track_caller]
fn assert_harmless(page: &str) {
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    let attributes = page.split(['<', '>']).skip(1).step_by(2);
    for tag in attributes {
        let names: String = tag.split('"').step_by(2).collect();
        assert!(!names.contains(" src") && !names.contains(" on"), "<{tag}>");
        for (_, rest) in tag
            .match_indices("href=\"")
            .map(|(at, name)| (at, &tag[at + name.len()..]))
        {
            let is_node = rest.starts_with("http") && tag.ends_with("/info\" rel=\"noreferrer\"");
            assert!(
                rest.starts_with('?') || rest.starts_with("data:,") || is_node,
                "<{tag}>"
            );
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
    let (head, rest) = page.split_once("<tbody>").unwrap_or((page, ""));
    let (_, foot) = rest.split_once("</tbody>").unwrap_or_default();
    assert!(head.len() + foot.len() < MAX_BYTES, "{} bytes", head.len() + foot.len());
}

/// The page of a router with one node, after its probe has finished.
fn page_with(behaviour: Behaviour, state: &str) -> String {
    let fleet = Fleet::start(1);
    fleet.set(0, behaviour);
    let router = launch().ips(fleet.list()).start();
    wait_state(&router, &fleet, 0, state);
    page(&router, "")
}

#[test]
fn headline_and_problems_by_reason_are_shown() {
    let fleet = Fleet::start(12);
    fleet.set_range(2..5, Behaviour::Status(500));
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, (0..2).chain(5..12));
    let shown = page(&router, "");
    assert!(
        shown.contains("<header class=\"warn\"><h1>9 of 12 nodes serve</h1>"),
        "{shown}"
    );
    let group = "<li><a href=\"?state=down\">3 nodes down</a>: status 500 <small>(for up to <time datetime=\"2";
    assert!(shown.contains(group), "{shown}");
    assert!(shown.contains("<meta http-equiv=\"refresh\" content=\"5\">"));
    assert!(!page(&router, "?refresh=off").contains("http-equiv=\"refresh\""));
}

#[test]
fn healthy_and_empty_lists_have_clear_headlines() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0]);
    let shown = page(&router, "");
    assert!(
        shown.contains("<header class=\"good\"><h1>1 of 1 node serves</h1>"),
        "{shown}"
    );
    assert!(shown.contains("Nothing is wrong."), "{shown}");
    let shown = page(&launch().ips("# none yet\n").start(), "");
    assert!(shown.contains("<header class=\"bad\"><h1>0 of 0 nodes serve</h1>") && shown.contains("No node is listed"));
    assert!(!shown.contains("Nothing is wrong."));
}

#[test]
fn every_link_keeps_filter_and_pause() {
    let fleet = Fleet::start(5);
    fleet.set(3, Behaviour::Status(500));
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0, 1, 2, 4]);
    let shown = page(&router, "?state=up&container=hello-world&q=127&n=2&refresh=off");
    assert!(shown.contains("<option selected>up") && shown.contains("name=\"refresh\" value=\"off\""));
    assert!(shown.contains("name=\"q\"") && shown.contains("value=\"127\"") && shown.contains("value=\"hello-world\""));
    assert!(shown.contains("1 to 2 of 4"), "{shown}");
    let kept = "q=127&amp;container=hello%2Dworld&amp;refresh=off";
    let link = format!("<a href=\"?n=2&amp;state=down&amp;{kept}\">down 1</a>");
    assert!(shown.contains(&link), "{shown}");
    let next = format!("?n=2&amp;offset=2&amp;state=up&amp;{kept}");
    assert!(shown.contains(&format!("<a href=\"{next}#nodes\">next</a>")), "{shown}");
    let shown = page(&router, &next.replace("&amp;", "&"));
    assert!(shown.contains("3 to 4 of 4") && shown.contains(">previous</a>") && !shown.contains(">next</a>"));
    for tag in shown.split("<a href=\"?").skip(1) {
        let (link, text) = tag.split_once("\">").expect("a link");
        assert!(link.contains("refresh=off") || text.starts_with("Resume"), "{link}");
        assert!(link.contains("q=127") && link.contains("n=2"), "{link}");
    }
}

#[test]
fn form_is_shown_only_on_paused_page() {
    let router = launch().start();
    let live = page(&router, "?q=10.0");
    assert!(
        live.contains("http-equiv=\"refresh\"") && !live.contains("<form"),
        "{live}"
    );
    assert!(
        live.contains("address contains <q>10.0</q> <a href=\"?\">remove</a>"),
        "{live}"
    );
    let paused = page(&router, "?q=10.0&refresh=off");
    assert!(
        !paused.contains("http-equiv=\"refresh\"") && paused.contains("<form"),
        "{paused}"
    );
    assert!(paused.contains("<a href=\"?q=10%2E0\">Resume refresh</a>"), "{paused}");
}

#[test]
fn node_links_to_its_info_and_shows_details() {
    let shown = page_with(info(&[("a", "")]), "up");
    assert!(shown.contains("/info\" rel=\"noreferrer\">127."), "{shown}");
    assert!(
        shown.contains("<dt>Speed<dd>") && shown.contains("(assumed)"),
        "{shown}"
    );
    assert!(shown.contains("<a href=\"?container=a\">a</a> 1"), "{shown}");
}

#[test]
fn hostile_container_id_is_text() {
    assert!(page_with(info(&[(HOSTILE, "")]), "up").contains(ESCAPED));
}

#[test]
fn hostile_image_is_text() {
    let fleet = Fleet::start(2);
    fleet.set(0, info(&[("a", "plain")]));
    fleet.set(1, info(&[("a", HOSTILE)]));
    let router = launch().ips(fleet.list()).start();
    wait_state(&router, &fleet, 1, "up");
    wait_state(&router, &fleet, 0, "up");
    assert!(page(&router, "").contains(ESCAPED));
}

#[test]
fn description_and_version_are_not_shown() {
    let body = json!({"version": HOSTILE, "containers": [{"id": "a", "description": HOSTILE}], "pending": {}});
    assert!(!page_with(Behaviour::Body(body.to_string().into_bytes()), "up").contains("alert"));
}

#[test]
fn hostile_job_type_is_text() {
    let body = json!({"containers": [], "pending": {"<b onload=x>": 3}});
    assert!(page_with(Behaviour::Body(body.to_string().into_bytes()), "up").contains("3 &#60;b onload=x&#62;"));
}

#[test]
fn hostile_reason_is_text() {
    let body = json!({"containers": HOSTILE, "pending": {}}).to_string().into_bytes();
    assert!(page_with(Behaviour::Body(body), "down").contains("&#60;script&#62;"));
}

#[test]
fn hostile_redirect_is_text() {
    let location = "http://127.0.0.1:1/<script>alert(1)</script>".to_owned();
    page_with(Behaviour::Redirect(location), "down");
}

#[test]
fn hostile_invalid_lines_are_text_and_truncated() {
    let lines: String = (0..100)
        .map(|at| format!("{HOSTILE}{at}{}\n", "\"".repeat(200)))
        .collect();
    let shown = page(&launch().ips(lines).start(), "");
    assert!(
        shown.contains("line 1: <q>&#60;script&#62;") && shown.contains("and 95 more"),
        "{shown}"
    );
}

#[test]
fn hostile_explorer_is_text() {
    let explorer = Explorer::start(Listing::Body(json!({ "data": HOSTILE }).to_string()));
    let router = launch().set("API_URL", format!("{}/'&a=b", explorer.url())).start();
    let shown = page(&router, "");
    assert!(shown.contains("/&#39;&#38;a=b:"), "{shown}");
}

#[test]
fn hostile_parameters_stay_values() {
    let router = launch().start();
    let query = "%3Cscript%3E%22%3E%27%3Cimg%20src%3Dx%3E";
    for name in ["q", "container"] {
        let shown = page(&router, &format!("?{name}={query}&n=0&refresh=off"));
        assert!(
            shown.contains("value=\"&#60;script&#62;&#34;&#62;&#39;&#60;img src=x&#62;\""),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("{name}=%3Cscript%3E%22%3E%27%3Cimg%20src%3Dx%3E")),
            "{shown}"
        );
    }
    let longest = "%26".repeat(256);
    page(&router, &format!("?q={longest}&container={longest}&refresh=off"));
}

#[test]
fn invisible_and_reordering_characters_are_escaped() {
    let shown = page_with(info(&[("\u{202e}exe.\u{0}\u{1b}[31m\u{200b}", "")]), "up");
    assert!(shown.contains("\\u{202e}exe.\\0\\u{1b}[31m\\u{200b}"), "{shown}");
}

#[test]
fn worst_case_page_stays_below_limit() {
    let fleet = Fleet::start(4);
    let ids: Vec<String> = (0..20).map(|at| format!("{at}{}", "\u{1}".repeat(250))).collect();
    for (index, image) in ["\u{1}", "\u{2}", "\u{3}", "\u{4}"].iter().enumerate() {
        let image = image.repeat(256);
        let containers: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), image.as_str())).collect();
        fleet.set(index, info(&containers));
    }
    let explorer = Explorer::start(Listing::Body("\u{1}".repeat(500)));
    let bad: String = (0..100).map(|_| format!("\u{202e}{}\n", "\u{1}".repeat(100))).collect();
    let router = quick()
        .ips(fleet.list() + &bad)
        .set("API_URL", format!("{}/{}", explorer.url(), "&".repeat(2_000)))
        .set("PENDING_WEIGHTS", format!("{}=2", "\"".repeat(2_000)))
        .start();
    wait_available(&router, &fleet, []);
    (0..4).for_each(|index| wait_state(&router, &fleet, index, "up"));
    let longest = "%26".repeat(256);
    page(&router, &format!("?q={longest}&container={longest}&refresh=off"));
    let shown = page(&router, "?n=1&offset=1");
    assert!(shown.contains("20 container ids run with different images"), "{shown}");
}

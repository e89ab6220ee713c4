//! `/status`: the same as a page for people, whatever strangers write into it.

use serde_json::json;

use super::{info, quick, wait_state};
use crate::support::{Behaviour, Explorer, Fleet, Listing, Router};
use crate::{launch, wait_available};

/// What a stranger would like to see in the page, and what is there instead.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
const ESCAPED: &str = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;&lt;img src=x onerror=alert(1)&gt;";
/// Longest page without its rows.
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

/// No script, no request elsewhere, nothing of a stranger that is not text; and short.
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
            assert!(rest.starts_with('?') || rest.starts_with("data:,"), "<{tag}>");
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import"));
    let (head, rest) = page.split_once("<tbody>").unwrap_or((page, ""));
    let (_, foot) = rest.split_once("</tbody>").unwrap_or_default();
    assert!(head.len() + foot.len() < MAX_BYTES, "{} bytes", head.len() + foot.len());
}

/// The page of a router with one node that does this, once it was asked.
fn page_with(behaviour: Behaviour, state: &str) -> String {
    let fleet = Fleet::start(1);
    fleet.set(0, behaviour);
    let router = launch().ips(fleet.list()).start();
    wait_state(&router, &fleet, 0, state);
    page(&router, "")
}

#[test]
fn at_a_glance_it_says_how_many_serve_what_is_wrong_and_since_when() {
    let fleet = Fleet::start(12);
    fleet.set_range(2..5, Behaviour::Status(500));
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, (0..2).chain(5..12));
    let shown = page(&router, "");
    assert!(shown.contains("<h1 class=\"\">9 of 12 nodes serve</h1>"), "{shown}");
    assert!(shown.contains("<li>3 nodes are <a href=\"?state=down\">down</a>, the longest for <time datetime=\"2"));
    assert!(shown.contains("status 500"));
    assert!(shown.contains("<meta http-equiv=\"refresh\" content=\"5\">"));
    assert!(!page(&router, "?refresh=off").contains("http-equiv=\"refresh\""));
}

#[test]
fn when_nothing_is_wrong_it_says_so_and_when_nobody_serves_too() {
    let fleet = Fleet::start(1);
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0]);
    let shown = page(&router, "");
    assert!(
        shown.contains("1 of 1 node serves") && shown.contains("Nothing is wrong."),
        "{shown}"
    );
    let shown = page(&launch().ips("# none yet\n").start(), "");
    assert!(shown.contains("<h1 class=\"bad\">0 of 0 nodes serve</h1>") && shown.contains("No node is listed"));
}

#[test]
fn filters_are_links_and_a_form_that_keep_each_other() {
    let fleet = Fleet::start(5);
    fleet.set(3, Behaviour::Status(500));
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, [0, 1, 2, 4]);
    let shown = page(&router, "?state=up&container=hello-world&q=127&n=2");
    assert!(shown.contains("<option selected>up") && shown.contains("<a href=\"?state=down\">down 1</a>"));
    assert!(shown.contains("name=\"q\"") && shown.contains("value=\"127\"") && shown.contains("value=\"hello-world\""));
    assert!(shown.contains("1 to 2 of 4"), "{shown}");
    let next = "?n=2&amp;offset=2&amp;state=up&amp;q=127&amp;container=hello%2Dworld";
    assert!(shown.contains(&format!("<a href=\"{next}\">next</a>")), "{shown}");
    let shown = page(&router, &next.replace("&amp;", "&"));
    assert!(shown.contains("3 to 4 of 4") && shown.contains(">before</a>") && !shown.contains(">next</a>"));
}

#[test]
fn a_hostile_container_id_is_text() {
    assert!(page_with(info(&[(HOSTILE, "")]), "up").contains(ESCAPED));
}

#[test]
fn a_hostile_image_is_text() {
    let fleet = Fleet::start(2);
    fleet.set(0, info(&[("a", "plain")]));
    fleet.set(1, info(&[("a", HOSTILE)]));
    let router = launch().ips(fleet.list()).start();
    wait_state(&router, &fleet, 1, "up");
    wait_state(&router, &fleet, 0, "up");
    assert!(page(&router, "").contains(ESCAPED));
}

#[test]
fn a_hostile_description_and_version_are_not_shown() {
    let body = json!({"version": HOSTILE, "containers": [{"id": "a", "description": HOSTILE}], "pending": {}});
    assert!(!page_with(Behaviour::Body(body.to_string().into_bytes()), "up").contains("alert"));
}

#[test]
fn a_hostile_type_of_jobs_is_text() {
    let body = json!({"containers": [], "pending": {"<b onload=x>": 3}});
    assert!(page_with(Behaviour::Body(body.to_string().into_bytes()), "up").contains("3 &lt;b onload=x&gt;"));
}

#[test]
fn a_hostile_reason_is_text() {
    let body = json!({"containers": HOSTILE, "pending": {}}).to_string().into_bytes();
    assert!(page_with(Behaviour::Body(body), "down").contains("&lt;script&gt;"));
}

#[test]
fn a_hostile_redirect_is_text() {
    let location = "http://127.0.0.1:1/<script>alert(1)</script>".to_owned();
    page_with(Behaviour::Redirect(location), "down");
}

#[test]
fn hostile_lines_of_ips_txt_are_text_and_only_some_are_shown() {
    let lines: String = (0..100)
        .map(|at| format!("{HOSTILE}{at}{}\n", "\"".repeat(200)))
        .collect();
    let shown = page(&launch().ips(lines).start(), "");
    assert!(
        shown.contains("line 1: <q>&lt;script&gt;") && shown.contains("and 95 more"),
        "{shown}"
    );
}

#[test]
fn a_hostile_explorer_is_text() {
    let explorer = Explorer::start(Listing::Body(json!({ "data": HOSTILE }).to_string()));
    let router = launch().set("API_URL", format!("{}/'&a=b", explorer.url())).start();
    let shown = page(&router, "");
    assert!(shown.contains("/&#39;&amp;a=b:"), "{shown}");
}

#[test]
fn hostile_parameters_come_back_as_values() {
    let router = launch().start();
    let query = "%3Cscript%3E%22%3E%27%3Cimg%20src%3Dx%3E";
    for name in ["q", "container"] {
        let shown = page(&router, &format!("?{name}={query}&n=0"));
        assert!(
            shown.contains("value=\"&lt;script&gt;&quot;&gt;&#39;&lt;img src=x&gt;\""),
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
fn text_that_moves_or_hides_other_text_is_written_out() {
    let shown = page_with(info(&[("\u{202e}exe.\u{0}\u{1b}[31m\u{200b}", "")]), "up");
    assert!(shown.contains("\\u{202e}exe.\\0\\u{1b}[31m\\u{200b}"), "{shown}");
}

#[test]
fn the_worst_of_everything_stays_short() {
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

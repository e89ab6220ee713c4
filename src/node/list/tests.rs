use super::*;
use proptest::prelude::*;

fn parse(text: impl AsRef<[u8]>) -> NodeList {
    parse_list(text.as_ref()).expect("a list")
}

fn listed(text: &str) -> Vec<String> {
    let list = parse(text);
    assert_eq!(list.bad, []);
    list.nodes.iter().map(|node| node.addr.to_string()).collect()
}

#[test]
fn marks_spaces_blank_lines_and_comments_are_accepted() {
    let text = "\u{feff} 1.2.3.4:4000\t\r\n\r\n# all of ours\n   # more\nb:1 # note\nc#note\r\n\
                https://d#\n#";
    assert_eq!(listed(text), ["1.2.3.4:4000", "b:1", "c", "https://d"]);
}

#[test]
fn an_empty_list_is_an_empty_list() {
    for text in ["", "\u{feff}", "\n\n", "# none", " \r\n"] {
        assert_eq!(parse(text), NodeList::default());
    }
}

#[test]
fn same_node_is_one_under_its_first_spelling() {
    let text = "Node:80\nother\nhttp://node\nnode # again\nhttps://node\nOTHER";
    assert_eq!(listed(text), ["Node:80", "other", "https://node"]);
}

#[test]
fn invalid_lines_are_reported_and_skipped() {
    let list = parse("a\r\n\r\n foo/../bar # x \r\nb\n\"\u{1b}[2J");
    assert_eq!(list.nodes.len(), 2);
    assert_eq!(list.bad_count, 2);
    let told: Vec<_> = list.bad.iter().map(BadLine::to_string).collect();
    assert!(told[0].starts_with("line 3: \"foo/../bar\": expected a path without"));
    assert!(told[1].starts_with("line 5: \"\\\"\\u{1b}[2J\": expected a host name"));
}

#[test]
fn invalid_line_is_truncated_at_100_characters() {
    for (chars, kept) in [(100, 100), (101, 100)] {
        let list = parse("ä".repeat(chars));
        assert_eq!(list.bad[0].text.chars().count(), kept);
    }
}

#[test]
fn hundred_invalid_lines_are_kept_and_all_counted() {
    for (lines, kept) in [(100, 100), (101, 100)] {
        let list = parse("?\n".repeat(lines));
        assert_eq!((list.bad.len(), list.bad_count), (kept, lines));
    }
}

#[test]
fn line_that_is_not_utf8_is_invalid() {
    let list = parse(b"a\ncaf\xe9 # x\nb\n");
    assert_eq!((list.nodes.len(), list.bad_count), (2, 1));
    assert_eq!(list.bad[0].to_string(), "line 2: \"caf\u{fffd}\": expected UTF-8");
}

#[test]
fn binary_file_is_not_a_list() {
    // As Windows writes "Unicode"; an image; more than half of the lines.
    for bytes in [
        &b"\xff\xfea\x00:\x008\x000\x00"[..],
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"\xff\n?\n\xfe\n",
    ] {
        assert!(parse_list(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(parse(b"\xff\na\n\xfe\n").nodes.len(), 1, "an address makes it a list");
    assert_eq!(parse(b"\xff\n?\n").bad_count, 2, "half of them");
}

#[test]
fn nodes_above_100_000_are_counted() {
    let text: String = (0..100_002).map(|n| format!("n{n}\n")).collect();
    let list = parse(text + "n0\nn100001\n?\n");
    assert_eq!((list.nodes.len(), list.left_out, list.bad_count), (100_000, 3, 1));
}

#[test]
fn password_is_masked() {
    for (line, told) in [
        ("http://me:secret@a:80", "http://***@a:80"),
        ("me:se:c@ret@a", "***@a"),
        ("https://:secret@a # b", "https://***@a"),
        ("me:se#cret@a#b", "***@a"),
        ("a:0 # me@b", "a:0"),
        ("a:0#b", "a:0"),
        ("me@a:80", "me@a:80"),
        ("@", "@"),
        ("http://@:", "http://@:"),
    ] {
        assert_eq!(parse(line).bad[0].text, told);
    }
}

fn attributes(line: &str) -> Attributes {
    let list = parse(line);
    assert_eq!(list.bad, [], "{line}");
    list.nodes[0].attributes.clone()
}

#[test]
fn words_after_the_address_are_attributes() {
    let public = |text| Some(NodeAddr::parse(text).expect("an address"));
    let (drain, backup) = (true, true);
    for (line, is_draining, is_backup, shown) in [
        ("a", false, false, None),
        ("a drain", drain, false, None),
        ("a\tbackup#drain", false, backup, None),
        ("a as=b:1", false, false, public("b:1")),
        (
            " a  as=https://b/c/  drain backup # n\r",
            drain,
            backup,
            public("https://b/c"),
        ),
    ] {
        let found = attributes(line);
        assert_eq!(
            (found.is_draining, found.is_backup, found.public),
            (is_draining, is_backup, shown),
            "{line}"
        );
    }
}

#[test]
fn invalid_word_makes_the_line_invalid() {
    for (line, reason) in [
        ("a drian", "unknown word \"drian\"; did you mean drain?"),
        ("a DRAIN", "unknown word \"DRAIN\"; did you mean drain?"),
        ("a bakup", "unknown word \"bakup\"; did you mean backup?"),
        (
            "a b",
            "unknown word \"b\"; expected drain, backup, as=ADDRESS or a # comment",
        ),
        (
            "a weight=3",
            "unknown word \"weight\"; expected drain, backup, as=ADDRESS or a # comment",
        ),
        ("a drain backup drain", "expected drain at most once"),
        ("a backup backup", "expected backup at most once"),
        ("a as=b as=b", "expected as= at most once"),
        ("a as=", "as=: expected a host"),
        ("a as=me:pw@b", "as=: expected an address without a user name"),
        (
            "a/b/info drain",
            "expected an address without /info, which the router appends; did you mean a/b?",
        ),
    ] {
        let list = parse(line);
        assert_eq!((list.nodes.len(), list.bad_count), (0, 1), "{line}");
        assert_eq!(list.bad[0].reason.to_string(), reason);
    }
}

#[test]
fn comment_after_an_address_is_its_name() {
    let long = "ä".repeat(41);
    for (line, name) in [
        ("a", None),
        ("a #", None),
        ("a#  # ", Some("#")),
        ("a drain # rack 3 ", Some("rack 3")),
        ("a # \u{1b}[31m\u{202e}", Some("\\u{1b}[31m\\u{202e}")),
        (&format!("a # {long}"), Some(&long[..80])),
    ] {
        assert_eq!(attributes(line).name.as_deref(), name, "{line}");
    }
    let escapes = attributes(&format!("a #{}", "\u{202e}".repeat(9)));
    assert_eq!(escapes.name.map(|name| name.len()), Some(40), "no escape is cut");
}

#[test]
fn duplicates_are_counted_and_the_first_line_applies() {
    let list = parse("a drain\nb\nA:80 backup\nhttp://b # again\n");
    assert_eq!(list.duplicates, Some((3, 2)));
    assert_eq!(list.nodes.len(), 2);
    assert!(list.nodes[0].attributes.is_draining && !list.nodes[0].attributes.is_backup);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = parse_list(&bytes);
    }

    #[test]
    fn parsed_list_parses_to_the_same(text in "([aA]:?[0-9]{0,2} ?#?\r?\n){0,20}") {
        let list = parse(&text);
        let again: String = list.nodes.iter().map(|node| format!("{}\n", node.addr)).collect();
        let again = parse(&again);
        prop_assert_eq!(again.nodes.iter().map(|node| &node.addr).collect::<Vec<_>>(), list.nodes.iter().map(|node| &node.addr).collect::<Vec<_>>());
    }
}

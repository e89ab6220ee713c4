//! Filters, order and pages of `/status.json`.

use serde_json::json;

use super::{fields, report};
use crate::support::{Behaviour, Fleet, Router};
use crate::{launch, wait_available};

/// A fleet of which every fifth node is down.
fn fleet_in_part() -> (Fleet, Router) {
    let fleet = Fleet::start(30);
    fleet.set_each(|index| match index {
        0 => Behaviour::up(0, &["rare", "hello-world"]),
        _ if index % 5 == 3 => Behaviour::Status(500),
        _ => Behaviour::up(0, &["hello-world"]),
    });
    let router = launch().ips(fleet.list()).start();
    wait_available(&router, &fleet, (0..30).filter(|index| index % 5 != 3));
    (fleet, router)
}

#[test]
fn problems_rank_first_then_natural_address_order() {
    let (fleet, router) = fleet_in_part();
    let sorted = |filter: fn(&usize) -> bool| {
        let mut addresses: Vec<_> = (0..30).filter(filter).map(|index| fleet.addr(index)).collect();
        addresses.sort_unstable();
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = [sorted(|index| index % 5 == 3), sorted(|index| index % 5 != 3)].concat();
    let all = report(&router, "");
    assert_eq!(fields(&all, "address"), expected);
    let mut walked = Vec::new();
    for offset in (0..).step_by(7).take_while(|offset| *offset < 30) {
        let page = report(&router, &format!("?n=7&offset={offset}"));
        assert_eq!(page["matched"], 30);
        walked.extend(fields(&page, "address"));
    }
    assert_eq!(walked, expected);
    assert_eq!(fields(&report(&router, "?offset=30"), "address"), [""; 0]);
    assert_eq!(fields(&report(&router, "?n=0"), "address"), [""; 0]);
}

#[test]
fn nodes_are_filtered_by_state_container_and_address() {
    let (fleet, router) = fleet_in_part();
    let down = report(&router, "?state=down&n=2&offset=1");
    assert_eq!(
        (&down["matched"], fields(&down, "state")),
        (&json!(6), vec![json!("down"); 2])
    );
    let rare = report(&router, "?container=rare");
    assert_eq!(
        (&rare["matched"], fields(&rare, "address")),
        (&json!(1), vec![json!(fleet.addr(0).to_string())])
    );
    assert_eq!(report(&router, "?container=hello-world&n=1")["matched"], 24);
    assert_eq!(report(&router, "?container=none")["matched"], 0);
    let part = fleet.addr(7).to_string();
    assert_eq!(fields(&report(&router, &format!("?q={part}")), "address"), [part]);
    let both = report(&router, &format!("?state=down&q={}", fleet.addr(0)));
    assert_eq!(both["matched"], 0);
    let empty = report(&router, "?state=&container=&q=&n=&offset=");
    assert_eq!(empty["matched"], 30, "a form sends empty fields");
}

#[test]
fn address_filter_ignores_case() {
    let router = launch().ips("Node-A.example.invalid:4000\n").start();
    assert_eq!(report(&router, "?q=node-a.EXAMPLE")["matched"], 1);
}

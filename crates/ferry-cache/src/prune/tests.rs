//! In which order paths go.

use std::collections::BTreeMap;

use ferry_formats::StorePath;

use super::referrers_first;

fn path(number: u8) -> StorePath {
    StorePath::from_parts([number; 20], "x").unwrap()
}

fn waves(edges: &[(u8, &[u8])]) -> Vec<Vec<StorePath>> {
    let edges: Vec<(StorePath, Vec<StorePath>)> = edges
        .iter()
        .map(|(from, to)| (path(*from), to.iter().map(|to| path(*to)).collect()))
        .collect();
    let edges: BTreeMap<&StorePath, Vec<&StorePath>> =
        edges.iter().map(|(from, to)| (from, to.iter().collect())).collect();
    referrers_first(&edges)
}

#[test]
fn nothing_goes_before_what_refers_to_it() {
    assert_eq!(
        waves(&[(0, &[1, 2, 3]), (1, &[2]), (2, &[3]), (3, &[]), (4, &[3])]),
        [vec![path(0), path(4)], vec![path(1)], vec![path(2)], vec![path(3)]]
    );
}

#[test]
fn a_circle_that_somebody_made_up_goes_too() {
    assert_eq!(waves(&[(0, &[1]), (1, &[2]), (2, &[1])]), [vec![path(0)], vec![path(1), path(2)]]);
}

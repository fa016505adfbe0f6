//! Sets larger than a machine word.

use std::collections::BTreeMap;

use crate::answers::{nodes, written};
use crate::source::explorer;
use crate::world::{Names, World, path};

/// 200 packages, each of which has a library of its own and shares one with its neighbour, and
/// all of which share a last one.
#[test]
fn sizes_of_more_members_than_fit_into_one_pass_are_right() {
    let count = 200_u64;
    let mut world = World::default();
    let shared = path("libc");
    world.object(&shared, &[]).size = Some(1_000_000);
    for number in 0..count {
        let (own, pair) = (path(&format!("own-{number}")), path(&format!("pair-{}", number / 2)));
        world.object(&own, &[]).size = Some(100);
        world.object(&pair, &[&shared]).size = Some(10_000);
        world.object(&path(&format!("package-{number}")), &[&own, &pair]).size = Some(number);
    }
    let mut explorer = explorer(&world);
    let packages: Names = (0..count).map(|number| path(&format!("package-{number}"))).collect();
    let set = nodes(&mut explorer, &packages);
    let report = explorer.sizes(&set).unwrap();

    let own: u64 = (0..count).sum();
    assert_eq!(report.nar, own);
    assert_eq!(report.closure, own + 100 * count + 10_000 * count / 2 + 1_000_000);
    assert_eq!((report.closure_objects, report.unknown), (501, 0));
    let members: BTreeMap<String, (u64, u64)> = report
        .members
        .iter()
        .map(|member| (explorer.graph().render(member.node), (member.closure, member.added)))
        .collect();
    assert_eq!(members.len(), 200);
    for number in 0..count {
        // The pair's library would stay for the neighbour.
        let expected = (number + 100 + 10_000 + 1_000_000, number + 100);
        assert_eq!(members[&path(&format!("package-{number}"))], expected);
    }
    assert_eq!(written(&explorer, &set), packages);
}

//! References, and what goes with them.

use std::collections::BTreeSet;

use ferry_formats::StoreDir;
use ferry_graph::{Explorer, Facts, Kind, NodeSet};
use ferry_store::Store as _;
use ferry_store::daemon::{Address, DaemonOptions, DaemonStore};
use ferry_store::facts::StoreFacts;
use ferry_test_world::NixVersion;

use crate::support::{
    assert_nothing_is_missing, explorer, nodes, on_each_filled, path, paths, query, registered,
};

#[test]
fn references_and_sizes_are_those_that_nix_tells() {
    on_each_filled(|filled| {
        let expected = registered(&filled.machine);
        assert!(expected.len() > 400, "{}", expected.len());
        // All at once: more than a fair share.
        let mut whole = explorer(filled.store.facts());
        let all = whole.everything().unwrap();
        assert_eq!(paths(&whole, &all), expected.keys().cloned().collect());
        // One by one, each anew: less.
        for (path, registered) in &expected {
            for explorer in [&mut explorer(filled.store.facts()), &mut whole] {
                let node = nodes(explorer, [path.as_str()]);
                let references = explorer.immediate(Kind::Run, &node).unwrap();
                assert_eq!(paths(explorer, &references), registered.references, "{path}");
                let node = node.iter().next().unwrap();
                assert_eq!(explorer.graph().nar_size(node), Some(registered.nar_size), "{path}");
                assert_nothing_is_missing(explorer);
            }
        }
    });
}

#[test]
fn a_daemon_tells_the_same_as_the_database() {
    on_each_filled(|filled| {
        let daemon = filled.machine.daemon();
        let socket = filled.machine.path("/nix/var/nix/daemon-socket/socket");
        let address = Address::Socket(socket);
        let store = DaemonStore::new(address, StoreDir::default(), DaemonOptions::default());
        let expected: BTreeSet<String> = registered(&filled.machine).into_keys().collect();
        let listed = store.all_paths().unwrap().expect("a daemon can list its paths");
        let listed: BTreeSet<String> =
            listed.iter().map(|path| StoreDir::default().render_path(path)).collect();
        assert_eq!(listed, expected);

        let mut answers = Vec::new();
        let here: [Box<dyn Facts + '_>; 2] =
            [Box::new(StoreFacts::new(&store)), Box::new(filled.store.facts())];
        for facts in here {
            let mut explorer = Explorer::new(StoreDir::default());
            explorer.add_source(facts);
            let roots = nodes(&mut explorer, filled.derivations.iter().map(String::as_str));
            let all = explorer.everything().unwrap();
            let build = explorer.closure(&[Kind::Build], &roots, None, None).unwrap();
            let output = nodes(&mut explorer, [filled.output.as_str()]);
            let run = explorer.closure(&[Kind::Run], &output, None, None).unwrap();
            let makers = explorer.derivers(&run).unwrap();
            let fixed = explorer.fixed_outputs(&build).unwrap();
            let answer = [all, build, run, makers, fixed].map(|set| paths(&explorer, &set));
            assert!(answer.iter().all(|set| !set.is_empty()));
            assert_nothing_is_missing(&explorer);
            answers.push(answer);
        }
        assert_eq!(answers[0], answers[1]);
        drop(daemon);
    });
}

#[test]
fn run_closures_are_those_that_nix_tells() {
    on_each_filled(|filled| {
        let roots = [&filled.output, &filled.derivations[0], &filled.derivations[1]];
        let mut together = explorer(filled.store.facts());
        for root in roots {
            let expected = query(&filled.machine, &["--requisites", root]);
            for explorer in [&mut explorer(filled.store.facts()), &mut together] {
                let root = nodes(explorer, [root.as_str()]);
                let closure = explorer.closure(&[Kind::Run], &root, None, None).unwrap();
                assert_eq!(paths(explorer, &closure), expected);
                assert_nothing_is_missing(explorer);
            }
        }
    });
}

#[test]
fn referrers_are_those_that_nix_tells() {
    on_each_filled(|filled| {
        let mut explorer = explorer(filled.store.facts());
        let all = explorer.everything().unwrap();
        let expected = registered(&filled.machine);
        for path in
            expected.keys().filter(|path| path.contains("crossing") || path.ends_with(".sh"))
        {
            let target = nodes(&mut explorer, [path.as_str()]);
            let mut found = explorer.dependents(&[Kind::Run], &all, &target, Some(1)).unwrap();
            found.difference_with(&target);
            let mut referrers = query(&filled.machine, &["--referrers", path]);
            referrers.remove(path);
            assert_eq!(paths(&explorer, &found), referrers, "{path}");
        }
    });
}

#[test]
fn derivers_are_those_that_nix_tells() {
    on_each_filled(|filled| {
        let expected = registered(&filled.machine);
        let mut whole = explorer(filled.store.facts());
        // So many that the table is read from end to end.
        let all: NodeSet = whole.everything().unwrap();
        let outputs = whole.outputs(&all).unwrap();
        assert!(outputs.len() > 400);
        whole.derivers(&outputs).unwrap();
        let mut made = 0;
        for (output, registered) in &expected {
            let Some(deriver) = &registered.deriver else { continue };
            let derivers = match filled.machine.version() {
                // It cannot tell the others.
                NixVersion::V2_8 => BTreeSet::from([deriver.clone()]),
                _ => query(&filled.machine, &["--valid-derivers", output]),
            };
            for explorer in [&mut explorer(filled.store.facts()), &mut whole] {
                let node = nodes(explorer, [output.as_str()]);
                let found = explorer.derivers(&node).unwrap();
                assert_eq!(paths(explorer, &found), derivers, "{output}");
                assert_nothing_is_missing(explorer);
            }
            assert_eq!(
                filled.store.derivers(&path(output)).unwrap(),
                derivers.iter().map(|text| path(text)).collect::<Vec<_>>(),
            );
            made += 1;
        }
        assert!(made >= 5, "{made}");
    });
}

//! `ferry query` and its relatives, as a person or a program meets them.

use std::collections::BTreeMap;

use ferry_test_world::{Machine, NixVersion, Origin, World};
use serde::Deserialize;

use crate::support::{Built, ferry, machine, on_each_built, query, shell, sorted};

#[track_caller]
fn assert_refused(machine: &Machine, args: &[&str], code: i32, words: &[&str]) -> String {
    let outcome = ferry(machine, args).fails();
    assert_eq!(outcome.code(), code, "{args:?}: {}", outcome.stderr);
    for words in words {
        assert!(outcome.stderr.contains(words), "not told: {words}\nbut: {}", outcome.stderr);
    }
    outcome.stderr
}

#[test]
fn a_mistake_in_a_query_is_shown_where_it_is() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let refused = |text: &str, words: &[&str]| {
        assert_refused(&machine, &["query", text], 2, words);
    };
    refused("closur(run, /nix/store)", &["unknown function `closur`", "`closure`", "^"]);
    refused("closure(rum, x)", &["`run`", "^"]);
    refused("run(x", &[")", "^"]);
    refused("", &["empty"]);
    assert_refused(&machine, &["query"], 2, &["EXPR"]);
    assert_refused(&machine, &["query", "--query-file", "/data/none"], 1, &["/data/none"]);
    assert_refused(&machine, &["deps", "run"], 2, &["the run dependencies of what?"]);
    assert_refused(&machine, &["pack", "/data", "--set", "recip", "-o", "/tmp/x"], 2, &[]);
}

#[test]
fn what_is_missing_is_named() {
    on_each_built(|_, built| {
        let Built { machine, derivation, top, fod } = built;
        let absent = "/nix/store/00000000000000000000000000000000-absent";
        let not_valid = format!("path {absent} is not valid in local store");
        for command in [["deps", "run"], ["deps", "build"], ["why", top]] {
            let told = assert_refused(machine, &[&command[..], &[absent]].concat(), 1, &[]);
            let wanted = if command[0] == "why" { "does not need" } else { not_valid.as_str() };
            assert!(told.contains(wanted), "{command:?}: {told}");
        }
        let eval = format!("no evaluation of {derivation} was recorded");
        assert_refused(machine, &["deps", "eval", derivation], 1, &[&eval, "--trace"]);
        // All that is missing, at once; and with --partial the rest of the answer.
        let both = format!("run({absent}) + run({}) + {top}", absent.replace("absent", "other"));
        assert_refused(
            machine,
            &["query", &both],
            1,
            &["2 facts are missing", "-absent", "-other"],
        );
        let partial = ferry(machine, ["query", "--partial", &both]).succeed();
        assert_eq!(partial.text().trim(), top);
        assert!(partial.stderr.contains("ferry: missing: path"), "{}", partial.stderr);
        let told = ferry(machine, ["query", "--partial", "--json", &both]).succeed();
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("it is JSON");
        assert_eq!(told["paths"].as_array().map(Vec::len), Some(1));
        assert_eq!(told["missing"].as_array().map(Vec::len), Some(2));

        // A deriver that is gone.
        let deriver = query(machine, &["--deriver", fod]).concat();
        let forget = format!(
            "ln -s {fod} /nix/var/nix/gcroots/fod
             nix-store --gc --option keep-derivations false"
        );
        shell(machine, &forget).ok();
        let gone = format!("the deriver of {fod}, {deriver}, is not valid in");
        assert_refused(machine, &["deps", "build", fod], 1, &[&gone]);
        assert_eq!(ferry(machine, ["deps", "run", fod]).ok(), "");
    });
}

#[test]
fn a_derivation_that_is_damaged_is_an_error_with_its_place() {
    on_each_built(|_, built| {
        let Built { machine, derivation, .. } = built;
        let text = machine.read(derivation);
        let half = text.len() / 2;
        shell(machine, &format!("chmod u+w {derivation}; truncate -s {half} {derivation}")).ok();
        let words = [derivation.as_str(), "cannot be parsed", "at byte "];
        assert_refused(machine, &["deps", "build", derivation], 1, &words);
        // What does not read it is not hindered.
        ferry(machine, ["deps", "run", derivation]).ok();
    });
}

#[test]
fn a_binary_cache_knows_what_is_not_here() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let built = Built::new(&world, version);
        let Built { machine: maker, top, .. } = &built;
        let flags = ["--extra-experimental-features", "nix-command", "copy", "--to"];
        maker.command("nix").args(flags).args(["file:///data/cache", top]).ok();
        let origin = Origin::start();
        origin.serve_files(&maker.path("/data/cache"));
        let closure = query(maker, &["--requisites", top]);

        let elsewhere = machine(&world, version);
        shell(&elsewhere, "echo x >/data/x; nix-store --add /data/x").ok();
        let url = origin.url();
        let ask = |home: &str, args: &[&str]| {
            let command = ferry(&elsewhere, ["deps", "run", "--closure", top]).args(args);
            command.env("XDG_CACHE_HOME", home).online()
        };
        let (here, there) = (["--store", "auto"], ["--store", url.as_str()]);
        let found = ask("/data/a", &[here, there].concat()).ok();
        assert_eq!(sorted(found.lines()), closure);
        let requests = origin.requests();
        // Answers are kept.
        assert_eq!(sorted(ask("/data/a", &there).ok().lines()), closure);
        assert_eq!(origin.requests(), requests);
        // A directory is a cache too.
        let local =
            ferry(maker, ["deps", "run", "--closure", top, "--store", "file:///data/cache"]);
        assert_eq!(sorted(local.ok().lines()), closure);

        // What it does not have, and what it should not have.
        let fod = &built.fod;
        let absent = ferry(&elsewhere, ["deps", "run", fod, "--store", &url]).online().fails();
        assert!(
            absent.stderr.contains(&format!("path {fod} is not valid in")),
            "{}",
            absent.stderr
        );
        let hash = top.trim_start_matches("/nix/store/").split('-').next().expect("a hash");
        origin.serve(&format!("/{hash}.narinfo"), "<html>Please log in</html>");
        let garbage = ask("/data/b", &there).fails();
        assert_eq!(garbage.code(), 1);
        let place = format!("{url}/{hash}.narinfo");
        assert!(garbage.stderr.contains(&place), "{}", garbage.stderr);
    }
}

#[test]
fn inside_a_build_the_references_graph_is_enough() {
    on_each_built(|_, built| {
        let Built { machine, top, .. } = built;
        let expression = format!(
            r#"derivation {{
                name = "closure";
                system = builtins.currentSystem;
                builder = "/bin/bash-static";
                PATH = "/usr/bin:/bin:/opt/bin";
                top = builtins.storePath "{top}";
                exportReferencesGraph = [ "graph" (builtins.storePath "{top}") ];
                args = [ "-euc" ''
                    ferry deps run --closure "$top" --references-graph graph >"$out"
                '' ];
            }}"#
        );
        machine.write("/data/closure.nix", expression);
        let made = machine.command("nix-build").args(["/data/closure.nix", "--no-out-link"]).ok();
        let made = String::from_utf8(machine.read(made)).expect("it is a list of paths");
        assert_eq!(sorted(made.lines()), query(machine, &["--requisites", top]));
    });
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyAnswer {
    version: u32,
    steps: Option<Vec<Step>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Step {
    from: String,
    to: String,
    kind: String,
    builder: Option<String>,
    sites: Vec<Site>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Site {
    file: String,
    r#in: String,
    offset: u64,
    context: String,
}

#[test]
fn why_tells_each_step_and_the_file_that_holds_it() {
    on_each_built(|_, built| {
        let Built { machine, derivation, top, fod } = built;
        let [a, b] = ["crossing-a-1.0", "crossing-b-1.0"].map(|name| built.output(name));
        let why = |args: &[&str]| -> WhyAnswer {
            let told = ferry(machine, ["why", "--json"]).args(args).ok();
            serde_json::from_str(&told).expect("the documented JSON")
        };
        let steps = why(&[top, &a]).steps.expect("there is a way");
        let way: Vec<(&str, &str)> = steps.iter().map(|s| (&*s.from, &*s.to)).collect();
        assert_eq!(way, [(top.as_str(), b.as_str()), (&b, &a)]);
        assert!(steps.iter().all(|step| step.kind == "run" && step.builder.is_none()));
        let site = &steps[0].sites[0];
        assert_eq!((site.file.as_str(), site.r#in.as_str()), ("bin/hello", "contents"));
        // The offset is that of the hash in the file.
        let file = machine.read(format!("{top}/bin/hello"));
        let hash = &b["/nix/store/".len()..][..32];
        assert_eq!(&file[site.offset as usize..][..32], hash.as_bytes());
        if machine.version() != NixVersion::V2_8 {
            // Nix shows the same place.
            let shown = machine.command("nix").args(["why-depends", "--precise", top, &b]).ok();
            assert!(shown.contains("bin/hello: "), "{shown}");
        }

        // What a does not refer to, it is built from.
        let steps = why(&[&a, fod]).steps.expect("there is a way");
        assert_eq!((steps.len(), steps[0].kind.as_str()), (1, "build"));
        let deriver = query(machine, &["--deriver", &a]).concat();
        assert_eq!(steps[0].builder.as_deref(), Some(deriver.as_str()));
        assert_eq!(why(&[derivation, fod]).steps.expect("there is a way").len(), 3);

        let text = ferry(machine, ["why", top, &a]).ok();
        assert!(text.starts_with(&format!("{top}\n  run\n    in bin/hello: ")), "{text}");
        assert!(text.ends_with(&a), "{text}");
        let none = ferry(machine, ["why", "--json", "--kind", "run", top, fod]).fails();
        assert_eq!(none.code(), 1);
        let answer: WhyAnswer = serde_json::from_slice(&none.stdout).expect("the documented JSON");
        assert!(answer.steps.is_none() && answer.version == 1);
        assert!(none.stderr.contains("does not need"), "{}", none.stderr);
    });
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SizeAnswer {
    version: u32,
    members: Vec<Member>,
    nar_size: u64,
    closure_size: u64,
    closure_paths: usize,
    unknown_sizes: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Member {
    path: String,
    nar_size: Option<u64>,
    closure_size: u64,
    added_size: u64,
}

#[test]
fn sizes_are_those_of_nix_and_shared_parts_count_once() {
    on_each_built(|_, built| {
        let Built { machine, top, .. } = built;
        let size_of = |paths: &[String]| -> u64 {
            let told = machine.command("nix-store").args(["--query", "--size"]).args(paths).ok();
            told.lines().map(|line| line.parse::<u64>().expect("a size")).sum()
        };
        let requisites = |path: &str| query(machine, &["--requisites", path]);
        let dev = built.output("multi-1.0-dev");
        let told = ferry(machine, ["size", "--json", &format!("{top} + {dev}")]).ok();
        let answer: SizeAnswer = serde_json::from_str(&told).expect("the documented JSON");
        let members: BTreeMap<&str, &Member> =
            answer.members.iter().map(|member| (member.path.as_str(), member)).collect();
        let mut union = requisites(top);
        union.extend(requisites(&dev));
        union.sort();
        union.dedup();
        for (path, other) in [(top, &dev), (&dev, top)] {
            let member = members[path.as_str()];
            assert_eq!(member.nar_size, Some(size_of(std::slice::from_ref(path))));
            assert_eq!(member.closure_size, size_of(&requisites(path)));
            let others = requisites(other);
            let alone: Vec<String> =
                union.iter().filter(|path| !others.contains(path)).cloned().collect();
            assert_eq!(member.added_size, size_of(&alone));
        }
        assert_eq!(answer.closure_size, size_of(&union));
        assert_eq!(answer.nar_size, size_of(&[top.clone(), dev.clone()]));
        assert_eq!((answer.closure_paths, answer.unknown_sizes), (union.len(), 0));
        assert_eq!(answer.version, 1);
        let text = ferry(machine, ["size", "--sort", "nar-size", top]).ok();
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with(top)), "{text}");
    });
}

#[test]
fn answers_come_in_the_shape_that_is_asked_for() {
    on_each_built(|_, built| {
        let Built { machine, derivation, top, fod } = built;
        let ask = |args: &[&str]| ferry(machine, ["query"]).args(args).succeed();
        let runtime = format!("set(runtime, {top})");
        let lines = ask(&[&runtime]).text();
        let null = ask(&["--null", &runtime]).text();
        assert_eq!(
            null.split_terminator('\0').collect::<Vec<_>>(),
            lines.lines().collect::<Vec<_>>()
        );
        // References first: what Nix can import in that order.
        let order = ask(&["--topological", &runtime]).text();
        let order: Vec<&str> = order.lines().collect();
        assert_eq!(order.last(), Some(&top.as_str()));
        for (place, path) in order.iter().enumerate() {
            for reference in query(machine, &["--references", path]) {
                assert!(order[..=place].contains(&reference.as_str()), "{path} before {reference}");
            }
        }
        let long = ask(&["--long", top]).text();
        let size = machine.command("nix-store").args(["--query", "--size", top]).ok();
        assert_eq!(long.split_whitespace().collect::<Vec<_>>(), [size.trim(), top]);
        let json: serde_json::Value =
            serde_json::from_slice(&ask(&["--json", top]).stdout).expect("it is JSON");
        assert_eq!(json["paths"][0]["path"], top.as_str());
        assert_eq!(json["paths"][0]["narSize"].to_string(), size.trim());
        let dot = ask(&["--dot", &format!("closure(run+build, {derivation})")]).text();
        assert!(dot.starts_with("digraph") && dot.trim_end().ends_with('}'), "{dot}");
        assert!(dot.contains("crossing-source-1.0.txt"), "{dot}");

        // A file of definitions, and one that asks as well.
        let definitions = "# what the network brought\nset network(x) = fods(closure(build, x)) - drvs(closure(build, x));\n";
        machine.write("/data/network.query", definitions);
        machine.write("/data/all.query", format!("{definitions}set(network, {derivation})"));
        let asked = format!("set(network, {derivation})");
        let wanted = [fod.as_str()];
        assert_eq!(
            ask(&["--query-file", "/data/network.query", &asked])
                .text()
                .lines()
                .collect::<Vec<_>>(),
            wanted
        );
        assert_eq!(
            ask(&["--query-file", "/data/all.query"]).text().lines().collect::<Vec<_>>(),
            wanted
        );
        let pack = ["pack", derivation, "--query-file", "/data/network.query", "--set", "network"];
        ferry(machine, pack).args(["-o", "/tmp/n.ferry"]).ok();
        assert_eq!(ferry(machine, ["ls", "/tmp/n.ferry"]).ok(), *fod);

        // An inventory of the other side.
        machine.write("/data/island.txt", format!("# the island\n{fod}\n"));
        let lacking = format!("set(runtime, {top}) + {fod} - have(/data/island.txt)");
        assert_eq!(ask(&[&lacking]).text(), lines);
        for listing in ["--sets", "--functions"] {
            let text = ask(&[listing]).text();
            assert!(text.lines().count() > 20, "{text}");
            ask(&["--json", listing]);
        }
    });
}

#[test]
fn a_recorded_evaluation_says_what_it_needed() {
    on_each_built(|_, built| {
        let Built { machine, derivation, fod, .. } = built;
        let dev = built.output("multi-1.0-dev");
        let need = |path: &str, why: &str| format!("{{\"need\":\"{path}\",\"why\":\"{why}\"}}\n");
        let trace = format!(
            "{{\"ferryTrace\":1,\"storeDir\":\"/nix/store\"}}\n{{\"root\":\"{derivation}\"}}\n{}{}\
             {{\"end\":true,\"complete\":true}}\n",
            need(fod, "fetch"),
            need(&dev, "import-from-derivation"),
        );
        machine.write("/tmp/c.trace", &trace);
        let ask = |args: &[&str]| {
            sorted(ferry(machine, args).args(["--trace", "/tmp/c.trace"]).ok().lines())
        };
        assert_eq!(ask(&["deps", "eval", derivation]), sorted([fod.as_str(), &dev]));
        assert_eq!(ask(&["query", &format!("ifd({derivation})")]), [dev.as_str()]);
        let sources = ask(&["query", &format!("set(sources, {derivation})")]);
        assert!(sources.contains(fod) && !sources.contains(&dev), "{sources:?}");
        let fragments = ask(&["query", &format!("set(sources+fragments, {derivation})")]);
        assert!(fragments.contains(&dev));

        machine.write("/tmp/cut.trace", &trace[..trace.len() - 20]);
        let cut = ["deps", "eval", derivation, "--trace", "/tmp/cut.trace"];
        assert_refused(machine, &cut, 1, &["/tmp/cut.trace"]);
    });
}

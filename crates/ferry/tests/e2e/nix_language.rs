//! `nix/lib.nix`: what derivations need, told to Nix expressions by real Nix, is what Nix itself and
//! `ferry` say; the same in pure evaluation.

use std::fs;
use std::path::Path;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World, big_graph, real_derivations};
use serde_json::Value;

use crate::support::{Built, ferry, machine, on_each, on_each_built, query, sorted};

/// The two ways to evaluate: a file that may read anything, and a flake.
const WAYS: [bool; 2] = [false, true];

/// Writes `expression`, which knows the functions as `lib`, and where Nix evaluates it.
fn place(machine: &Machine, expression: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nix");
    for name in ["lib.nix", "parse-derivation.nix"] {
        machine.write(format!("/data/asked/{name}"), fs::read(from.join(name)).unwrap());
    }
    let flake = "{ outputs = _: { answer = import ./asked.nix { system = \"x86_64-linux\"; }; }; }";
    machine.write("/data/asked/flake.nix", flake);
    let asked = format!("arguments: let lib = import ./lib.nix arguments; in\n{expression}\n");
    machine.write("/data/asked/asked.nix", asked);
    machine.write("/data/asked/default.nix", "import ./asked.nix { }");
}

/// The command that answers with what `expression` is, as JSON.
fn asking(machine: &Machine, pure: bool, expression: &str) -> MachineCommand {
    place(machine, expression);
    let what: &[&str] =
        if pure { &["path:/data/asked#answer"] } else { &["--file", "/data/asked"] };
    machine.command("nix").args(["eval", "--json"]).args(what)
}

fn ask(machine: &Machine, pure: bool, expression: &str) -> Value {
    serde_json::from_str(&asking(machine, pure, expression).ok()).expect("Nix prints JSON")
}

/// A list of strings that `expression` is, sorted.
fn paths(machine: &Machine, pure: bool, expression: &str) -> Vec<String> {
    let answer = ask(machine, pure, expression);
    let list = answer.as_array().expect("a list");
    sorted(list.iter().map(|item| item.as_str().expect("a list of strings")))
}

/// What `ferry query` prints, sorted.
fn selected(machine: &Machine, expression: &str) -> Vec<String> {
    sorted(ferry(machine, ["query", expression]).ok().lines())
}

/// Everything about build dependencies that there is a query for, of one derivation.
fn assert_build_dependencies(machine: &Machine, pure: bool, derivation: &str) {
    for (call, asked) in [
        ("lib.getBuildDeps drv", format!("build({derivation})")),
        ("lib.getBuildClosure drv", format!("closure(build, {derivation}^*)")),
        ("lib.getFixedOutputs drv", format!("fods(closure(build, {derivation}^*))")),
        (
            "builtins.filter lib.isFixedOutput (lib.getBuildDeps drv)",
            format!("fods(build({derivation}))"),
        ),
    ] {
        let call = format!("let drv = \"{derivation}\"; in map toString ({call})");
        let found = paths(machine, pure, &call);
        let wanted = selected(machine, &asked);
        let count = (found.len(), wanted.len());
        assert!(found == wanted, "Nix {}, pure: {pure}, {call} {count:?}", machine.version());
    }
}

#[test]
fn build_dependencies_are_those_of_the_query_language() {
    on_each_built(|_, built| {
        let all = query(&built.machine, &["--requisites", &built.derivation]);
        let derivations: Vec<&String> = all.iter().filter(|path| path.ends_with(".drv")).collect();
        assert_eq!(derivations.len(), 5);
        for pure in WAYS {
            for derivation in &derivations {
                assert_build_dependencies(&built.machine, pure, derivation);
            }
            // The download is known by its hash, and nothing that is built from it.
            let list = derivations.iter().map(|path| format!("\"{path}\"")).collect::<String>();
            let fixed = format!("map toString (builtins.filter lib.isFixedOutput [ {list} ])");
            let fod = query(&built.machine, &["--deriver", &built.fod]);
            assert_eq!(paths(&built.machine, pure, &fixed), fod);
        }
    });
}

#[test]
fn a_thousand_derivations_are_read_with_structured_attributes_and_several_outputs() {
    on_each(|_, machine| {
        let top = big_graph(&machine, 1000);
        for pure in WAYS {
            assert_build_dependencies(&machine, pure, &top);
        }
    });
}

/// The file of a derivation, written anew from what `readDerivation` says of it.
fn aterm(derivation: &Value) -> String {
    let text = |value: &Value| {
        let text = value.as_str().expect("a string").replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{}\"", text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t"))
    };
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    let texts = |value: &Value| list(value.as_array().expect("a list").iter().map(text).collect());
    let pairs = |name: &str, second: &dyn Fn(&Value) -> String| {
        let pairs = derivation[name].as_object().expect("an object").iter();
        let pair = |(key, value): (&String, &Value)| {
            format!("({},{})", text(&Value::from(key.as_str())), second(value))
        };
        list(pairs.map(pair).collect())
    };
    let output =
        |output: &Value| ["path", "hashAlgo", "hash"].map(|member| text(&output[member])).join(",");
    format!(
        "Derive({},{},{},{},{},{},{})",
        pairs("outputs", &output),
        pairs("inputDrvs", &texts),
        texts(&derivation["inputSrcs"]),
        text(&derivation["system"]),
        text(&derivation["builder"]),
        texts(&derivation["args"]),
        pairs("env", &text),
    )
}

#[test]
fn nothing_is_lost_of_what_real_derivations_say() {
    let Some(texts) = real_derivations() else { return };
    on_each(|_, machine| {
        // Not valid, as the sources that they name are not there. Any file can be read.
        for (name, text) in &texts {
            machine.write(format!("/nix/store/{name}"), text);
        }
        let names: Vec<&String> = texts.keys().collect();
        machine.write("/data/asked/names.json", serde_json::to_vec(&names).unwrap());
        let names = "builtins.fromJSON (builtins.readFile ./names.json)";
        let read = "map (name: lib.readDerivation \"${builtins.storeDir}/${name}\")";
        let told = ask(&machine, false, &format!("{read} ({names})"));
        let told = told.as_array().expect("a list");
        assert_eq!(told.len(), texts.len());
        for (derivation, (name, text)) in told.iter().zip(&texts) {
            assert!(aterm(derivation).as_bytes() == text, "Nix {}, {name}", machine.version());
            let path = derivation["drvPath"].as_str().unwrap();
            assert_eq!(path.strip_prefix("/nix/store/"), Some(&**name));
            assert_eq!(derivation["name"], name[33..name.len() - 4]);
        }
    });
}

/// Texts with everything in them that has a meaning in a derivation's file; BYTES are replaced by
/// some that are no UTF-8.
const AWKWARD: &str = r##"
let
  texts = [
    "\"" "\\" "\n" "\r" "\t" "\\n" "\\\"" "\\\\n" "\"\"" "(" ")" "[" "]" "," "" " "
    "],[(" ")],[" "],\"" "Derive(" "DrvWithVersion(" "\\b" "\\q" "\\\\b" "]\",[\"(\""
    "naïve 🚢" "${builtins.storeDir}/00000000000000000000000000000000-no-such.drv"
  ];
  every = builtins.concatStringsSep "" texts;
  run = attributes: derivation ({
    system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" ">$out" ] ++ texts;
  } // attributes);
  one = run { name = "one"; outputs = [ "out" "dev" ]; inherit every texts; };
  two = run { name = "two"; __structuredAttrs = true; inherit texts; inherit (one) dev; };
  big = run {
    name = "big"; text = builtins.concatStringsSep every (builtins.genList toString 8000);
    inherit one; two = two.drvPath;
  };
  bytes = run { name = "bytes"; text = "BYTES\"BYTES"; args = [ "BYTES" ]; };
  read = map lib.readDerivation;
in {
  all = read [ one two big ];
  bytes = map (read: [ (read.args == bytes.args) (read.env.text == bytes.text) ]) (read [ bytes ]);
  inputs = builtins.sort builtins.lessThan (map toString (lib.getBuildDeps big));
  wanted = builtins.sort builtins.lessThan (map toString [ one one.dev two one.drvPath two.drvPath ]);
}
"##;

#[test]
fn nothing_is_lost_of_awkward_texts_and_large_derivations() {
    on_each(|_, machine| {
        for pure in WAYS {
            place(&machine, AWKWARD);
            let file = "/data/asked/asked.nix";
            let text = String::from_utf8(machine.read(file)).unwrap();
            let parts: Vec<&[u8]> = text.split("BYTES").map(str::as_bytes).collect();
            let command = asking(&machine, pure, AWKWARD);
            machine.write(file, parts.join(&b"\xff\xe9\x01\x7f"[..]));
            let told: Value = serde_json::from_str(&command.ok()).expect("Nix prints JSON");
            for derivation in told["all"].as_array().unwrap() {
                let text = machine.read(derivation["drvPath"].as_str().unwrap());
                assert!(aterm(derivation).as_bytes() == text, "{}", derivation["name"]);
            }
            let big = told["all"][2]["env"]["text"].as_str().unwrap();
            assert!(big.len() > 1 << 20, "{}", big.len());
            assert_eq!(told["bytes"], serde_json::json!([[true, true]]));
            assert_eq!(told["inputs"], told["wanted"]);
        }
    });
}

/// What `nix-store --query` answers about the outputs of a derivation, each itself left out of
/// its references.
fn references(machine: &Machine, outputs: &[String]) -> Vec<String> {
    let of = |output: &String| {
        let mut found = query(machine, &["--references", output]);
        found.retain(|path| path != output);
        found
    };
    let mut all: Vec<String> = outputs.iter().flat_map(of).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn run_dependencies_are_the_references_that_nix_knows() {
    on_each_built(|_, built| {
        let machine = &built.machine;
        for pure in WAYS {
            for object in built.outputs() {
                let path = vec![object.path];
                let call =
                    |name: &str| paths(machine, pure, &format!("lib.{name} \"{}\"", path[0]));
                assert_eq!(call("getRunDeps"), references(machine, &path));
                assert_eq!(call("getRunClosure"), query(machine, &["--requisites", &path[0]]));
            }
        }
    });
}

/// Two outputs, one of which refers to the other, itself and a source; and what is made of all that
/// the functions answer about it.
const USES: &str = r#"
let
  run = attributes: derivation ({
    system = "x86_64-linux"; builder = "/bin/bash-static";
  } // attributes);
  source = builtins.toFile "source" "a source\n";
  two = run {
    name = "two"; outputs = [ "out" "dev" ]; inherit source;
    args = [ "-euc" "echo $dev >$out; echo $source $dev >$dev" ];
  };
  top = run { name = "top"; args = [ "-euc" "echo $two >$out" ]; inherit two; };
  user = run {
    name = "user";
    args = [ "-euc" "for path in $used; do [ -e $path ]; done; echo $used >$out" ];
    used = lib.getBuildDeps top ++ lib.getBuildDeps two
      ++ lib.getRunDeps two ++ lib.getRunClosure top;
  };
in
  if wanted == "closure" then map toString (lib.getRunClosure two)
  else if wanted == "immediate" then map toString (lib.getRunDeps two)
  else if wanted == "inputs" then builtins.attrValues (builtins.mapAttrs
    (path: context: "${builtins.baseNameOf path} ${toString (context.outputs or context.path)}")
    (builtins.getContext (toString user.used)))
  else [ (builtins.readFile user) ]
"#;

#[test]
fn what_is_answered_is_built_before_it_is_used() {
    on_each(|_, machine| {
        for pure in WAYS {
            let ask = |wanted: &str| {
                paths(&machine, pure, &format!("let wanted = \"{wanted}\"; in\n{USES}"))
            };
            let used = ask("used").concat();
            let mut used = sorted(used.split_whitespace());
            used.dedup();
            let names: Vec<&str> = used.iter().map(|path| &path[44..]).collect();
            let mut sorted_names = names.clone();
            sorted_names.sort_unstable();
            assert_eq!(sorted_names, ["source", "top", "two", "two-dev"]);
            let inputs: Vec<String> =
                ask("inputs").iter().map(|input| input[33..].to_owned()).collect();
            assert_eq!(
                sorted(inputs.iter().map(String::as_str)),
                ["source 1", "top 1", "two 1", "two-dev 1", "two.drv out"]
            );

            let named = |name: &str| used.iter().find(|path| path.ends_with(name)).unwrap().clone();
            let outputs = [named("-two"), named("-two-dev")];
            assert_eq!(ask("immediate"), references(&machine, &outputs));
            let requisites = ["--requisites", &*outputs[0], &*outputs[1]];
            let mut closure = query(&machine, &requisites);
            closure.dedup();
            assert_eq!(ask("closure"), closure);
        }
    });
}

#[test]
fn any_shell_can_build_what_pure_evaluation_reads() {
    on_each(|_, machine| {
        let top = big_graph(&machine, 100);
        let asked = format!("map toString (lib.getBuildClosure \"{top}\")");
        let wanted = paths(&machine, true, &asked);
        for shell in ["/bin/bash-static", "/bin/dash"] {
            let other = format!(
                "let lib = import ./lib.nix (arguments // {{ shell = \"{shell}\"; }}); in {asked}"
            );
            assert_eq!(paths(&machine, true, &other), wanted);
        }
    });
}

#[test]
fn outputs_without_a_path_are_what_nix_puts_in_their_place() {
    let Some(world) = World::open() else { return };
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let machine = machine(&world, version);
        machine.configure(
            "experimental-features = nix-command flakes ca-derivations dynamic-derivations",
        );
        let file = machine.expression("floating.nix");
        let told = ask(
            &machine,
            false,
            &format!(
                "let graph = import {file} {{ dynamic = true; }}; in {{
                  found = map toString (lib.getBuildDeps graph.middle);
                  wanted = map toString [ graph.leaf.dev graph.leaf.out ];
                  fixed = map lib.isFixedOutput (with graph; [ fixed plain leaf middle top producer ]);
                  inputs = (lib.readDerivation graph.wrapper).inputSrcs;
                }}"
            ),
        );
        assert_eq!(told["found"], told["wanted"]);
        let fixed = [true, false, false, false, false, false];
        assert_eq!(told["fixed"], serde_json::json!(fixed));
        assert_eq!(told["inputs"], serde_json::json!([]));
        let refused = format!(
            "map toString (lib.getBuildDeps (import {file} {{ dynamic = true; }}).wrapper)"
        );
        let refused = asking(&machine, false, &refused).fails().stderr;
        assert!(refused.contains("an output of an output"), "{refused}");
    }
}

/// A recorded evaluation of what is at the top of the small graph.
fn trace(built: &Built) -> String {
    let need = |path: &str, why: &str| format!("{{\"need\":\"{path}\",\"why\":\"{why}\"}}\n");
    format!(
        "{{\"ferryTrace\":1,\"storeDir\":\"/nix/store\"}}\n{{\"root\":\"{}\"}}\n{}{}{}{{\"added\":\
         \"/nix/store/00000000000000000000000000000000-x\",\"why\":\"text\"}}\n{{\"outside\":\"/a/ñ.nix\",\"why\":\"nix-file\"}}\n\
         {{\"end\":true,\"complete\":true,\"lines\":6}}\n",
        built.derivation,
        need(&built.top, "import-from-derivation"),
        need(&built.fod, "fetch"),
        need(&built.fod, "fetch"),
    )
}

#[test]
fn what_an_evaluation_needed_is_what_was_recorded() {
    on_each_built(|_, built| {
        let Built { machine, derivation, top, .. } = built;
        let trace = trace(built);
        machine.write("/data/asked/top.trace", &trace);
        let deps = ["deps", "eval", derivation, "--trace", "/data/asked/top.trace"];
        let wanted = sorted(ferry(machine, deps).ok().lines());
        assert_eq!(wanted.len(), 2);
        for pure in WAYS {
            let call = |name: &str, arguments: &str| {
                format!("lib.{name} {{ trace = ./top.trace; {arguments} }} \"{derivation}\"")
            };
            let deps = call("getInstantiationDeps", "");
            assert_eq!(paths(machine, pure, &deps), wanted);
            let mut closure =
                wanted.iter().flat_map(|path| query(machine, &["-R", path])).collect::<Vec<_>>();
            closure.sort();
            closure.dedup();
            assert_eq!(paths(machine, pure, &call("getInstantiationClosure", "")), closure);
            let context = format!("map builtins.hasContext ({deps})");
            assert_eq!(ask(machine, pure, &context), serde_json::json!([true, true]));
            let outside = "map (line: line.outside) (lib.readTrace ./top.trace).outside";
            assert_eq!(paths(machine, pure, outside), ["/a/ñ.nix"]);

            let refused = |changed: &str, derivation: &str, why: &str| {
                machine.write("/data/asked/bad.trace", changed);
                let call =
                    format!("lib.getInstantiationDeps {{ trace = ./bad.trace; }} \"{derivation}\"");
                let told = asking(machine, pure, &call).fails().stderr;
                assert!(told.contains("bad.trace") && told.contains(why), "{why}: {told}");
            };
            refused(&trace, top, "is no result of the recorded evaluation");
            let end = trace.rfind("{\"end\"").unwrap();
            refused(&trace[..end], derivation, "cut short");
            refused(&trace.replace(":6", ":7"), derivation, "cut short");
            refused("", derivation, "no recorded evaluation");
            refused(&trace.replacen(":1", ":2", 1), derivation, "no recorded evaluation");
            refused(&trace.replacen("/nix/store", "/gnu/store", 1), derivation, "/gnu/store");
            let incomplete = trace.replace(
                "{\"added\":\"/nix/store/00000000000000000000000000000000-x\",\"why\":\"text\"}",
                "{\"incomplete\":\"it failed\"}",
            );
            refused(&incomplete, derivation, "incomplete, as it failed");
            let partial = deps.replace("top.trace;", "bad.trace; partial = true;");
            assert_eq!(paths(machine, pure, &partial), wanted);
        }
    });
}

/// What is built while it is evaluated, and what is made of that.
const RECORDED: &str = r#"
let
  run = name: script: derivation {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ];
  };
  made = import (run "made.nix" "echo '\"a text\"' >$out");
in { top = run "top" "echo ${builtins.toFile "text" made} >$out"; }
"#;

#[test]
fn a_recording_is_read_as_ferry_reads_it() {
    on_each(|_, machine| {
        machine.write("/data/asked/recorded.nix", RECORDED);
        let trace = "/data/asked/recorded.trace";
        let args = ["trace", "--file", "/data/asked/recorded.nix", "top", "--output", trace];
        ferry(&machine, args).ok();
        let instantiate = ["/data/asked/recorded.nix", "-A", "top"];
        let derivation = machine.command("nix-instantiate").args(instantiate).ok();
        let deps = ferry(&machine, ["deps", "eval", &derivation, "--trace", trace]).ok();
        let needs = "lib.getInstantiationDeps { trace = ./recorded.trace; }";
        for pure in WAYS {
            let found = paths(&machine, pure, &format!("{needs} \"{derivation}\""));
            assert_eq!(found, sorted(deps.lines()));
            assert!(found.len() == 1 && found[0].ends_with("-made.nix"), "{found:?}");
        }
        // The derivation itself, and not only its path.
        let top = format!("{needs} (import ./recorded.nix).top");
        assert_eq!(paths(&machine, false, &top), sorted(deps.lines()));
    });
}

//! Recording evaluations, and evaluating again with what was recorded, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ferry_test_world::{Machine, NixVersion, Origin, World, files};
use serde_json::Value;

use crate::support::{ferry, machine, shell};

/// A project, and what it fetches.
struct Project {
    machine: Machine,
    origin: Origin,
}

/// What the project fetches, made on the machine in `/data/serve`, and its hashes.
const SERVED: &str = r#"
cd /data
mkdir -p serve repo tar/top
echo "a download" > serve/a.txt
nix-hash --flat --type sha256 --base32 serve/a.txt > file-hash
cd repo
git init -q -b main .
echo '{ r = "from git"; }' > r.nix
export GIT_COMMITTER_DATE='2020-01-01 00:00:00 +0000' GIT_AUTHOR_DATE='2020-01-01 00:00:00 +0000'
git add .
git -c user.email=a@b -c user.name=n commit -qm first
git update-server-info
git rev-parse HEAD > ../rev
cp -r .git ../serve/repo.git
cd ../tar
echo '{ t = "from a tarball"; }' > top/default.nix
echo '{ outputs = { self }: { t = "from a tarball"; }; }' > top/flake.nix
tar --mtime=2020-01-01 -czf ../serve/t.tar.gz top
nix-hash --type sha256 --base32 top > ../tar-hash
"#;

/// One of everything; what it imports is built from a download that is not there any more later.
const EVERYTHING: &str = r#"
let
  origin = "@origin@";
  downloaded = derivation {
    name = "downloaded"; system = "builtin"; builder = "builtin:fetchurl"; url = "${origin}/a.txt";
    outputHashAlgo = "sha256"; outputHash = "@file-hash@"; outputHashMode = "flat";
    preferLocalBuild = true; unpack = false; executable = false;
  };
  made = name: text: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "read line < ${downloaded}; echo '${text}' > $out" ];
  };
in
derivation {
  name = "everything";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" "echo done > $out" ];
  module = import ./module.nix;
  source = ./source;
  text = builtins.toFile "text" "some text";
  read = builtins.readFile ./read.txt;
  filtered = builtins.filterSource (path: type: baseNameOf path != "left-out") ./filtered;
  renamed = builtins.path { path = ./renamed; name = "other"; };
  hashed = builtins.fetchurl { url = "${origin}/a.txt"; sha256 = "@file-hash@"; name = "hashed"; };
  tarball = (import (builtins.fetchTarball {
    url = "${origin}/t.tar.gz"; sha256 = "@tar-hash@";
  })).t;
  git = (import (builtins.fetchGit {
    url = "${origin}/repo.git"; ref = "main"; rev = "@rev@";
  } + "/r.nix")).r;
  imported = (import (made "imported.nix" "{ v = 7; }")).v;
  fragment = builtins.readFile (made "fragment" "built text");
  nested = import (made "outer.nix" "import ${made "inner.nix" "42"}");
  given = builtins.storePath @given@;
  looked-up = (import <library>).l;
}
"#;

const FLAKE: &str = r#"
{
  inputs.t.url = "@origin@/t.tar.gz";
  inputs.g = { url = "git+@origin@/repo.git?ref=main&rev=@rev@"; flake = false; };
  inputs.p.url = "path:/data/other";
  outputs = { self, t, g, p }: {
    made = derivation {
      name = "of-a-flake"; system = "x86_64-linux"; builder = "/bin/sh";
      args = [ "-c" "echo done > $out" ];
      a = t.t; b = (import (g + "/r.nix")).r; c = p.v; d = ./source; e = import ./module.nix;
    };
  };
}
"#;

impl Project {
    fn new(world: &World, version: NixVersion) -> Self {
        let machine = machine(world, version);
        let origin = Origin::start();
        shell(&machine, SERVED).ok();
        for (path, bytes) in files(&machine.path("/data/serve")) {
            if path.ends_with("info/refs") {
                let asked = format!("/{path}?service=git-upload-pack");
                origin.serve(&asked, bytes.clone());
            }
            origin.serve(&format!("/{path}"), bytes);
        }
        let project = Self { machine, origin };
        let given = project.machine.command("nix-store").args(["--add", "/data/repo/r.nix"]).ok();
        project.write("/data/p/top.nix", &EVERYTHING.replace("@given@", &given));
        project.write("/data/p/module.nix", "\"a module\"");
        project.write("/data/p/read.txt", "read");
        project.write("/data/p/source/file", "a source");
        project.write("/data/p/filtered/kept", "kept");
        project.write("/data/p/filtered/left-out", "left out");
        project.write("/data/p/renamed/file", "renamed");
        project.write("/data/library/default.nix", "{ l = import ./more.nix; }");
        project.write("/data/library/more.nix", "\"looked up\"");
        project.write("/data/flake/flake.nix", FLAKE);
        project.write("/data/flake/source/file", "a source");
        project.write("/data/flake/module.nix", "\"a module\"");
        project.write("/data/other/flake.nix", "{ outputs = { self }: { v = 3; }; }");
        project
    }

    /// Writes a file, with what is served and its hashes put in.
    fn write(&self, file: &str, text: &str) {
        let read = |name: &str| {
            let bytes = self.machine.read(format!("/data/{name}"));
            String::from_utf8(bytes).unwrap().trim().to_owned()
        };
        let text = text.replace("@origin@", &self.origin.url());
        let text = text.replace("@file-hash@", &read("file-hash"));
        let text = text.replace("@tar-hash@", &read("tar-hash")).replace("@rev@", &read("rev"));
        self.machine.write(file, text);
    }

    /// Records an evaluation.
    fn trace(&self, arguments: &[&str]) -> Trace {
        let command = ferry(&self.machine, ["trace", "--output", "/data/x.trace"]);
        command.args(arguments).online().env("NIX_PATH", "library=/data/library").succeed();
        Trace::read(&self.machine, "/data/x.trace")
    }
}

/// A trace, read by other means than ferry's.
#[derive(Debug)]
struct Trace {
    lines: Vec<Value>,
}

impl Trace {
    fn read(machine: &Machine, file: &str) -> Self {
        let text = String::from_utf8(machine.read(file)).unwrap();
        Self { lines: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() }
    }

    /// The lines of a kind, by what they are about.
    fn all(&self, kind: &str) -> BTreeMap<String, &Value> {
        let of_kind =
            self.lines.iter().filter_map(|line| Some((line.get(kind)?.as_str()?.to_owned(), line)));
        of_kind.collect()
    }

    /// Names of store paths, or other texts, of a kind, with the reason.
    fn named(&self, kind: &str) -> BTreeSet<(String, String)> {
        let short = |text: &str| match text.strip_prefix("/nix/store/") {
            Some(name) => name[33..].to_owned(),
            None => text.to_owned(),
        };
        let all = self.all(kind).into_iter();
        all.map(|(text, line)| (short(&text), line["why"].as_str().unwrap().to_owned())).collect()
    }

    fn is_complete(&self) -> bool {
        self.lines.last().unwrap()["complete"] == true
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect()
}

/// Carries what a trace lists to another machine, and nothing else; evaluates there, with no
/// network; and tells what came of it, and what it does not need after all.
fn evaluate_elsewhere(project: &Project, world: &World, trace: &Trace, command: &str) -> Elsewhere {
    let here = &project.machine;
    let there = machine(world, here.version());
    let needs: Vec<String> = trace.all("need").into_keys().collect();
    let mut script = String::from("cd /data; mkdir -p carried/files carried/cache\n");
    let mut takings = Vec::new();
    for (text, line) in trace.all("outside") {
        if line["why"] == "fetcher-cache" {
            script += &format!("mkdir -p $(dirname carried/cache/{text})\n");
            script += &format!("cp -a x.trace.cache/{text} carried/cache/{text}\n");
            takings.push(format!("/data/cache/{text}"));
        } else {
            let from = line["copy"].as_str().unwrap_or(&text);
            script += &format!("mkdir -p $(dirname carried/files{text})\n");
            script += &format!("cp -a {from} carried/files{text}\n");
            takings.push(text);
        }
    }
    if !needs.is_empty() {
        let needs = needs.join(" ");
        script += &format!(
            "nix-store --export $(nix-store --query --requisites {needs}) > carried/needs\n"
        );
    }
    script += "chmod -R u+w carried; tar -cf carried.tar carried\n";
    shell(here, &script).ok();
    crate::support::carry(here, &there, "/data/carried.tar");
    shell(
        &there,
        "cd /data; tar -xf carried.tar; mkdir -p carried/files/data; cp -a carried/files/data/. /data/; cp -a carried/cache cache",
    )
    .ok();

    let fresh = "nix-store --gc >/dev/null 2>&1; rm -rf /tmp/cache; \
                 [ ! -e /data/carried/needs ] || nix-store --import < /data/carried/needs >/dev/null\n";
    // The evaluator writes into its cache.
    let evaluate = format!("cp -a /data/cache /tmp/cache; {command} 2>/dev/null");
    let mut script = String::new();
    for need in &needs {
        // What stands in somebody's environment is alive.
        script += &format!("{fresh} nix-store --delete --ignore-liveness {need} >/dev/null 2>&1\n");
        script += &format!("if ({evaluate}) >/dev/null; then echo superfluous {need}; fi\n");
    }
    for path in &takings {
        script += &format!("{fresh} mv {path} /data/taken\n");
        script += &format!("if ({evaluate}) >/dev/null; then echo superfluous {path}; fi\n");
        script += &format!("mv /data/taken {path}\n");
    }
    script += &format!("{fresh} rm -rf /tmp/cache; cp -a /data/cache /tmp/cache; {command}\n");
    let script = format!("cd /data\n{script}");
    let search_path = trace.lines[0]["environment"]["NIX_PATH"].as_str().unwrap_or_default();
    let ran = there.command("bash").args(["-c", &script]);
    let ran = ran.env("XDG_CACHE_HOME", "/tmp/cache").env("NIX_PATH", search_path);
    let outcome = ran.env("NIX_CONFIG", "eval-cache = false").run();
    let mut superfluous = Vec::new();
    let mut result = String::new();
    for line in outcome.text().lines() {
        match line.strip_prefix("superfluous ") {
            Some(what) => superfluous.push(what.to_owned()),
            None => result = line.to_owned(),
        }
    }
    Elsewhere { result, superfluous, told: outcome.stderr, tried: needs.len() + takings.len() }
}

struct Elsewhere {
    /// What was evaluated in the end.
    result: String,
    /// Without which it could be evaluated all the same.
    superfluous: Vec<String>,
    told: String,
    /// How many things were taken away, one at a time.
    tried: usize,
}

/// What a trace lists is enough to evaluate elsewhere, and nothing of it can be done without.
fn assert_enough(project: &Project, world: &World, trace: &Trace, command: &str) {
    let there = evaluate_elsewhere(project, world, trace, command);
    let version = project.machine.version();
    let root = trace.all("root").into_keys().next().unwrap();
    assert_eq!(there.result, root, "Nix {version}:\n{}", there.told);
    assert_eq!(there.superfluous, [] as [&str; 0], "Nix {version}, of {}", there.tried);
}

#[test]
fn what_a_file_takes_to_be_evaluated_is_recorded_and_nothing_else() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let project = Project::new(&world, version);
        let trace = project.trace(&["--file", "/data/p/top.nix"]);
        assert!(trace.is_complete(), "Nix {version}: {:?}", trace.lines);
        let mut needs = vec![
            ("imported.nix", "import-from-derivation"),
            ("fragment", "import-from-derivation"),
            ("outer.nix", "import-from-derivation"),
            ("hashed", "fetch"),
            ("source", "fetch"),
            ("r.nix", "store-path"),
        ];
        needs.sort_unstable();
        assert_eq!(trace.named("need"), pairs(&needs), "Nix {version}");
        let hashed = trace.all("need").into_iter().find(|(path, _)| path.ends_with("-hashed"));
        assert_eq!(hashed.unwrap().1["url"], format!("{}/a.txt", project.origin.url()));
        let mut added = vec![("source", "source"), ("filtered", "source"), ("other", "source")];
        added.push(("text", "text"));
        assert_eq!(trace.named("added"), pairs(&added), "Nix {version}");
        let mut outside = trace.named("outside");
        // What was fetched without a hash that stands for it is in the cache, one way or another.
        outside.retain(|(_, why)| why != "fetcher-cache");
        let expected = [
            ("/data/library", "nix-path"),
            ("/data/p/filtered", "source"),
            ("/data/p/module.nix", "nix-file"),
            ("/data/p/read.txt", "file"),
            ("/data/p/renamed", "source"),
            ("/data/p/source", "source"),
            ("/data/p/top.nix", "nix-file"),
        ];
        assert_eq!(outside, pairs(&expected), "Nix {version}");
        assert_eq!(
            trace.named("warning").into_iter().map(|one| one.1).collect::<Vec<_>>(),
            ["nix-path"]
        );

        let command = "nix-instantiate /data/p/top.nix";
        let plain = project.machine.command("nix-instantiate").arg("/data/p/top.nix").online();
        let expected = plain.env("NIX_PATH", "library=/data/library").ok();
        assert_eq!(
            trace.all("root").into_keys().collect::<Vec<_>>(),
            std::slice::from_ref(&expected)
        );
        assert_enough(&project, &world, &trace, command);
    }
}

#[test]
fn what_a_flake_takes_to_be_evaluated_is_recorded_and_nothing_else() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let project = Project::new(&world, version);
        let evaluate = "nix path-info --derivation path:/data/flake#made";
        // Makes the lock file.
        let lock = project.machine.command("nix").args(["flake", "lock", "path:/data/flake"]);
        lock.online().succeed();
        let trace = project.trace(&["path:/data/flake#made"]);
        assert!(trace.is_complete(), "Nix {version}: {:?}", trace.lines);
        let nodes: BTreeSet<&str> =
            trace.all("need").values().map(|line| line["node"].as_str().unwrap()).collect();
        assert_eq!(nodes, BTreeSet::from(["g", "p", "t"]), "Nix {version}");
        let outside = trace.named("outside");
        assert_eq!(outside, pairs(&[("/data/flake", "flake")]), "Nix {version}");
        assert_eq!(trace.named("warning"), BTreeSet::new(), "Nix {version}");
        assert_enough(&project, &world, &trace, evaluate);
    }
}

#[test]
fn sets_are_complete_with_the_recordings_that_are_kept() {
    let Some(world) = World::open() else { return };
    let project = Project::new(&world, NixVersion::V2_26);
    let machine = &project.machine;
    let record = |arguments: &[&str]| {
        let command = ferry(machine, ["trace"]).args(arguments).online();
        command.env("NIX_PATH", "library=/data/library").ok()
    };
    let file = record(&["--file", "/data/p/top.nix"]);
    let trace = Trace::read(machine, &file);
    let root = trace.all("root").into_keys().next().unwrap();
    let name = root.strip_prefix("/nix/store/").and_then(|name| name.strip_suffix(".drv")).unwrap();
    assert_eq!(file, format!("/root/.local/state/ferry/traces/{name}.trace"));
    let ask = |query: &str| {
        ferry(machine, ["query", query]).ok().lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    machine.command("nix-store").args(["--realise", &root]).online().succeed();
    let needs: BTreeSet<String> = trace.all("need").into_keys().collect();
    assert_eq!(ask(&format!("eval({root})")), needs);
    for set in ["sources+fragments", "total"] {
        let missing: Vec<_> =
            needs.difference(&ask(&format!("set({set}, {root})"))).cloned().collect();
        assert_eq!(missing, [] as [&str; 0], "{set}");
    }
    assert!(!ask(&format!("set(runtime, {root})")).is_superset(&needs));

    // Recorded with other results as well, it is found under each name.
    project.write("/data/p/two.nix", "{ a = import ./top.nix; b = derivation { name = \"b\"; system = \"x\"; builder = import ./module.nix; }; }");
    let json = record(&["--file", "/data/p/two.nix", "b", "a", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let recording = &json["recordings"][0];
    assert_eq!(json["version"], 1);
    assert_eq!(recording["roots"].as_array().unwrap().len(), 2);
    assert_eq!(recording["needs"]["import-from-derivation"], 3);
    let other = recording["roots"].as_array().unwrap().iter().find(|one| **one != root).unwrap();
    assert_eq!(ask(&format!("eval({})", other.as_str().unwrap())), needs);
    // Nothing is left behind but the recordings.
    let kept = fs::read_dir(machine.path("/root/.local/state/ferry/traces")).unwrap();
    let kept = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        kept.into_iter().all(|name| name.ends_with(".trace") || name.ends_with(".trace.cache"))
    );
}

#[test]
fn a_flake_in_a_repository_takes_the_repository() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let project = Project::new(&world, version);
        let machine = &project.machine;
        let git = "git -c user.email=a@b -c user.name=n";
        let script = format!(
            "cd /data/flake; git init -q .; echo untracked > untracked; git add flake.nix module.nix source
             nix flake lock; git add flake.lock; {git} commit -qm first; echo 'changed' > source/file"
        );
        shell(machine, &script).online().ok();
        let trace = project.trace(&["/data/flake#made"]);
        assert!(trace.is_complete(), "Nix {version}: {:?}", trace.lines);
        assert_eq!(trace.named("outside"), pairs(&[("/data/flake", "flake")]), "Nix {version}");
        let whys: BTreeSet<String> = trace.named("need").into_iter().map(|need| need.1).collect();
        assert_eq!(whys, BTreeSet::from(["flake-input".to_owned()]), "Nix {version}");
        let evaluate = "nix path-info --derivation /data/flake#made";
        assert_enough(&project, &world, &trace, evaluate);
    }
}

#[test]
fn what_links_and_channels_lead_to_in_the_store_is_needed() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let project = Project::new(&world, version);
        let machine = &project.machine;
        machine.write("/data/channels/chosen/default.nix", "{ c = import ./more.nix; }");
        machine.write("/data/channels/chosen/more.nix", "\"of a channel\"");
        machine.write(
            "/data/q/top.nix",
            "derivation { name = \"linked\"; system = \"x\"; builder = \"x\"; \
             a = (import <chosen>).c; b = builtins.readFile ./result/file; }",
        );
        let script = "ln -s $(nix-store --add /data/channels) /data/profile
                      ln -s $(nix-store --add /data/p/source) /data/q/result";
        shell(machine, script).ok();
        let command = ferry(machine, ["trace", "--file", "/data/q/top.nix", "-o", "/data/x.trace"]);
        command.env("NIX_PATH", "/data/nothing:/data/profile").succeed();
        let trace = Trace::read(machine, "/data/x.trace");
        let names: BTreeSet<String> = trace.named("need").into_iter().map(|need| need.0).collect();
        assert_eq!(names, BTreeSet::from(["channels".to_owned(), "source".to_owned()]));
        let outside = pairs(&[("/data/q/top.nix", "nix-file"), ("/data/q/result", "path")]);
        assert_eq!(trace.named("outside"), outside, "Nix {version}");
        let evaluate = "nix-instantiate /data/q/top.nix";
        assert_enough(&project, &world, &trace, evaluate);
    }
}

//! Asking a cache on the web for everything that a large graph needs.

use std::time::Duration;

use ferry_test_world::{Machine, MachineCommand, Origin, big_graph};

use crate::measure::{Case, Section, section};
use crate::sections::Bench;

/// How many others each path refers to, which nothing before it does; and how many besides.
const CHILDREN: usize = 3;
const OTHERS: usize = 5;
/// `nix path-info` waits for each answer before it asks the next question: of more paths than this
/// it is not asked where answers take long.
const PATIENCE: usize = 5000;
/// Where Nix keeps what a cache has answered.
const ANSWERS: &str = "/data/answers";

/// A cache near by, and the same far away.
pub(crate) fn sections(bench: &Bench) -> Vec<Section> {
    let machine = bench.machine();
    eprintln!("ferry-bench: making a cache of {} derivations", bench.options.drvs);
    let top = big_graph(&machine, bench.options.drvs);
    let origin = Origin::start();
    let cached = Cached::new(&machine, &top, &origin);
    [0, 50].map(|wait| measure(bench, &machine, &origin, &cached, wait)).into()
}

/// What is asked for: a graph whose top refers to everything in it.
struct Cached {
    derivation: String,
    output: String,
    paths: usize,
}

impl Cached {
    /// Serves a narinfo of every output. No NAR: nobody gets as far as that.
    fn new(machine: &Machine, derivation: &str, origin: &Origin) -> Self {
        let query = |args: &str| {
            let script = format!(
                "nix-store --query --requisites {derivation} | grep '\\.drv$' | \
                 xargs -n 5000 nix-store --query --outputs {args}"
            );
            machine.command("bash").args(["-euc", &script]).ok()
        };
        let output = machine.command("nix-store").args(["--query", "--outputs", derivation]).ok();
        let mut paths = vec![output.clone()];
        let all = query("");
        paths.extend(all.lines().filter(|path| *path != output).map(str::to_owned));
        origin.serve("/nix-cache-info", "StoreDir: /nix/store\nWantMassQuery: 1\n");
        for (number, path) in paths.iter().enumerate() {
            let children = (1..=CHILDREN).map(|child| CHILDREN * number + child);
            // Others that come later, so that there are no circles.
            let others = (1..=OTHERS).map(|other| number + 1 + number * 7919 * other % 4096);
            let references = children.chain(others).filter_map(|number| paths.get(number));
            origin.serve(&format!("/{}.narinfo", hash(path)), narinfo(path, references));
        }
        Self { derivation: derivation.to_owned(), output, paths: paths.len() }
    }
}

fn base(path: &str) -> &str {
    path.strip_prefix("/nix/store/").unwrap_or(path)
}

fn hash(path: &str) -> &str {
    base(path).split('-').next().unwrap_or_default()
}

fn narinfo<'a>(path: &str, references: impl Iterator<Item = &'a String>) -> String {
    let references: Vec<&str> = references.map(|path| base(path)).collect();
    format!(
        "StorePath: {path}\nURL: nar/{}.nar.xz\nCompression: xz\n\
         FileHash: sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s\nFileSize: 10000\n\
         NarHash: sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s\nNarSize: 30000\n\
         References: {}\n",
        hash(path),
        references.join(" ")
    )
}

fn measure(
    bench: &Bench,
    machine: &Machine,
    origin: &Origin,
    cached: &Cached,
    wait: u64,
) -> Section {
    origin.answer_after(Duration::from_millis(wait));
    let url = &origin.url();
    let forget = || {
        machine.command("rm").args(["-rf", ANSWERS]).ok();
    };
    let run = |command: MachineCommand| {
        command.env("XDG_CACHE_HOME", ANSWERS).online().stdout_to(nowhere()).measure()
    };
    let ferry = |name: &str, more: &'static [&'static str]| {
        let ask = ["missing", "--quiet", "--no-check-sigs", &cached.derivation, "--in", url];
        let ask = ask.map(str::to_owned);
        Case::ferry(name, move || run(machine.command("ferry").args(&ask).args(more)))
    };
    let nix = |name: &str, against: &str, words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let [program, args @ ..] = words.as_slice() else { panic!("{name} is no command") };
        let (program, args) = (program.clone(), args.to_vec());
        Case::peer(name, against, move || run(machine.command(&program).args(&args))).after(forget)
    };
    let dry_run = |connections| {
        let args = ["nix-store", "--realise", "--dry-run", &cached.derivation];
        let options =
            ["--option", "substituters", url, "--option", "http-connections", connections];
        [&args[..], &options].concat()
    };
    let (usual, wider) = ("ferry missing --in URL", "ferry missing, http-connections 100");
    let mut cases = vec![ferry(usual, &[])];
    if wait == 0 || cached.paths <= PATIENCE {
        let ask = ["nix", "path-info", "--recursive", "--store", url, &cached.output];
        cases.push(nix("nix path-info -r --store URL", usual, &ask));
    }
    cases.push(nix("nix-store --realise --dry-run", usual, &dry_run("25")));
    cases.push(ferry(wider, &["--option", "http-connections", "100"]));
    cases.push(nix("nix-store --dry-run, http-connections 100", wider, &dry_run("100")));
    let title = format!("Asking a cache {wait} ms away for {} paths", cached.paths);
    section(title, "bytes", bench.options.runs, cases)
}

/// Where output goes that nobody reads.
fn nowhere() -> std::fs::File {
    let opened = std::fs::OpenOptions::new().write(true).open("/dev/null");
    opened.unwrap_or_else(|error| panic!("cannot open /dev/null: {error}"))
}

//! What is measured.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use clap::ValueEnum;
use ferry_test_world::trees;
use ferry_test_world::{Machine, NixVersion, World, big_graph};

use crate::cache;
use crate::delta::Delta;
use crate::derivations::Derivations;
use crate::freight::{BUNDLE, CACHE, EXPORT, Freight, shell, size_of};
use crate::generate;
use crate::measure::{Case, Section, section};
use crate::rebase::Rebase;
use crate::{Options, program};

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// What a large graph needs: queries of it
    Graph,
    /// The recipe of a large graph, packed
    RecipeOut,
    /// The same, loaded
    RecipeIn,
    /// One large file that does not compress, and one that does, packed and loaded
    Large,
    /// Many small files and some larger ones, packed and loaded
    Mixed,
    /// Updates, packed against the version before
    Delta,
    /// The recipe of a large graph whose bottom has changed, packed against the one before
    Base,
    /// The derivations of a real system, packed
    Drvs,
    /// Checking what arrived
    Verify,
    /// How time grows with the number of derivations
    Growth,
    /// The recipe of a large graph, into a binary cache
    CacheOut,
    /// The same, and real trees, from a binary cache into a store
    CacheIn,
    /// A binary cache that has all of it already
    CacheAgain,
    /// Real and generated trees, and one large file, into a binary cache
    CacheTrees,
    /// Asking a cache on the web for everything that a large graph needs
    Missing,
    /// Several large files, as many as `--pieces`, packed and loaded; only if it is named
    Pieces,
    /// Very many small store paths, as many as `--paths`, packed, checked and loaded; only if it is named
    Paths,
}

impl Name {
    /// Whether it takes so long, or so much room, that it is measured only if it is named.
    fn is_huge(self) -> bool {
        matches!(self, Self::Pieces | Self::Paths)
    }
}

/// Everything that sections share, each made when the first of them wants it.
pub(crate) struct Bench {
    pub(crate) options: Options,
    world: World,
    ferry: PathBuf,
    zstd: PathBuf,
    recipes: std::cell::RefCell<BTreeMap<u32, Rc<Freight>>>,
    noise: OnceCell<Freight>,
    text: OnceCell<Freight>,
    mixed: OnceCell<Freight>,
    real: OnceCell<Freight>,
}

impl Bench {
    pub(crate) fn new(world: World, options: Options, ferry: PathBuf) -> Self {
        Self {
            options,
            world,
            ferry,
            zstd: program::on_host("zstd"),
            recipes: Default::default(),
            noise: OnceCell::new(),
            text: OnceCell::new(),
            mixed: OnceCell::new(),
            real: OnceCell::new(),
        }
    }

    /// What to measure, in order.
    pub(crate) fn wanted(&self) -> Vec<Name> {
        let only = &self.options.only;
        let wanted = |name: &Name| match only.is_empty() {
            true => !name.is_huge(),
            false => only.contains(name),
        };
        Name::value_variants().iter().copied().filter(wanted).collect()
    }

    /// Measures one part.
    pub(crate) fn section(&self, name: Name) -> Vec<Section> {
        let runs = self.options.runs;
        let recipe = || self.recipe(self.options.drvs);
        match name {
            Name::Graph => vec![self.graph()],
            Name::RecipeOut => vec![self.recipe_out()],
            Name::RecipeIn => vec![self.recipe_in(), self.recipe_in_again()],
            Name::Large => [self.noise(), self.text()].map(|file| self.there_and_back(file)).into(),
            Name::Mixed => vec![self.there_and_back(self.mixed())],
            Name::Delta => {
                let (bytes, runs) = (self.options.mixed, self.options.runs);
                let systems = [NixVersion::V2_8, NixVersion::V2_26].map(|it| self.world.root(it));
                let root = self.world.root(self.options.nix);
                vec![
                    Delta::of_hashes(self.machine(), &root, bytes).section(runs),
                    Delta::of_systems(self.machine(), systems, bytes).section(runs),
                ]
            }
            Name::Base => {
                vec![Rebase::new(self.machine(), self.options.drvs).section(self.options.runs)]
            }
            Name::Drvs => {
                let there = Derivations::new(self.machine(), self.options.drvs_archive.as_deref());
                there.iter().map(|derivations| derivations.section(self.options.runs)).collect()
            }
            Name::Verify => vec![self.verify()],
            Name::Growth => vec![self.growth()],
            Name::CacheOut => vec![cache::out(&recipe(), &["zstd", "xz", "none"], runs)],
            Name::CacheIn => {
                vec![cache::into_store(&recipe(), runs), cache::into_store(self.real(), runs)]
            }
            Name::CacheAgain => vec![cache::again(&recipe(), runs)],
            Name::CacheTrees => {
                let trees = [self.real(), self.mixed(), self.noise()];
                trees.map(|trees| cache::out(trees, &["zstd", "xz"], runs)).into()
            }
            Name::Missing => crate::missing::sections(self),
            Name::Pieces => vec![self.pieces()],
            Name::Paths => vec![self.paths()],
        }
    }

    /// An empty machine with the programs on it.
    pub(crate) fn machine(&self) -> Machine {
        let machine = Machine::new(&self.world, self.options.nix);
        machine.install(&self.ferry, "ferry");
        machine.install(&self.zstd, "zstd");
        machine
    }

    fn freight(&self, name: String, fill: impl FnOnce(&Machine) -> Vec<String>) -> Freight {
        eprintln!("ferry-bench: making {name}");
        let here = self.machine();
        let roots = fill(&here);
        Freight { name, here, there: self.machine(), roots, many_files: true }
    }

    fn file(&self, name: String, fill: impl FnOnce(&Machine) -> String) -> Freight {
        Freight { many_files: false, ..self.freight(name, |here| vec![fill(here)]) }
    }

    fn recipe(&self, n: u32) -> Rc<Freight> {
        let mut recipes = self.recipes.borrow_mut();
        let recipe = recipes.entry(n).or_insert_with(|| {
            let name = format!("the recipe of {n} derivations");
            Rc::new(self.freight(name, |here| vec![big_graph(here, n)]))
        });
        Rc::clone(recipe)
    }

    fn noise(&self) -> &Freight {
        self.noise.get_or_init(|| {
            let bytes = self.options.large_file;
            let name = format!("a file of {} that does not compress", crate::report::size(bytes));
            self.file(name, |here| trees::add_large_file(here, bytes))
        })
    }

    fn text(&self) -> &Freight {
        self.text.get_or_init(|| {
            let bytes = self.options.large_file;
            let name = format!("a file of {} of text", crate::report::size(bytes));
            self.file(name, |here| generate::add_text_file(here, bytes))
        })
    }

    fn mixed(&self) -> &Freight {
        self.mixed.get_or_init(|| {
            let bytes = self.options.mixed;
            let name =
                format!("200 trees of 104 files, about {} in all", crate::report::size(bytes));
            self.freight(name, |here| generate::add_mixed_trees(here, bytes))
        })
    }

    fn real(&self) -> &Freight {
        self.real.get_or_init(|| {
            self.freight("the files of a small Debian".to_owned(), generate::add_real_trees)
        })
    }

    fn graph(&self) -> Section {
        let recipe = self.recipe(self.options.drvs);
        let (machine, root) = (&recipe.here, &recipe.roots[0]);
        // Nobody should wait for the other end of a pipe.
        let run = move |command: String| shell(machine, &format!("{command} >/dev/null")).measure();
        let ferry = |command: &str| {
            let script = command.replace('…', root);
            Case::ferry(command, move || run(script.clone()))
        };
        let nix = |command: &str, against: &str| {
            let script = command.replace('…', root);
            Case::peer(command, against, move || run(script.clone()))
        };
        let closure = "ferry deps run --closure …";
        let build = "ferry query 'closure(build, …)'";
        let immediate = "ferry deps run …";
        let referrers = "ferry query 'rdeps(run, all(), …)'";
        let cases = vec![
            ferry(closure),
            nix("nix-store --query --requisites …", closure),
            ferry(build),
            nix("nix derivation show -r …", build),
            ferry(immediate),
            nix("nix-store --query --references …", immediate),
            ferry(referrers),
            ferry("ferry query 'fods(closure(build, …))'"),
            ferry("ferry size …"),
        ];
        section(format!("Graph: {}", recipe.name), "bytes", self.options.runs, cases)
    }

    fn recipe_out(&self) -> Section {
        let freight = self.recipe(self.options.drvs);
        let freight = freight.as_ref();
        let mut cases: Vec<Case<'_>> =
            ["fast", "default", "max"].map(|level| pack(freight, level)).into();
        for (zstd, file, ferry) in [
            ("-3", "/data/export.zst", "ferry pack --level fast"),
            ("-19 --long=27", "/data/export-19.zst", "ferry pack --level max"),
        ] {
            cases.push(export(freight, zstd, file, ferry));
        }
        for compression in ["zstd", "xz"] {
            cases.push(copy_out(freight, compression));
        }
        let title = format!("Out: {}", freight.name);
        section(title, "bytes out", self.options.runs, cases)
    }

    fn recipe_in(&self) -> Section {
        let freight = self.recipe(self.options.drvs);
        let freight = freight.as_ref();
        freight.bring_all();
        let direct = "ferry load";
        let by_daemon = "ferry load --to daemon";
        let empty = || freight.empty();
        let cases = vec![
            load(freight, direct, &[]).after(empty),
            load(freight, "ferry load --to DIRECTORY", &["--to", "/data/island"]).after(empty),
            Case::ferry(by_daemon, || {
                let daemon = freight.there.daemon();
                let usage = freight.load(&["--to", "daemon"]).measure();
                drop(daemon);
                usage
            })
            .after(empty),
            import(freight, direct).after(empty),
            Case::peer("nix-store --import, NIX_REMOTE=daemon", by_daemon, || {
                let daemon = freight.there.daemon();
                let script = format!("zstd -q -d -c {EXPORT} | nix-store --import");
                let usage = shell(&freight.there, &script).env("NIX_REMOTE", "daemon").measure();
                drop(daemon);
                usage
            })
            .after(empty),
            copy_in(freight, direct).after(empty),
        ];
        let title = format!("In, into an empty store: {}", freight.name);
        section(title, "bytes in", self.options.runs, cases)
    }

    fn recipe_in_again(&self) -> Section {
        let freight = self.recipe(self.options.drvs);
        let freight = freight.as_ref();
        freight.bring_all();
        freight.empty();
        freight.load(&[]).ok();
        let direct = "ferry load, again";
        let cases = vec![
            load(freight, direct, &[]),
            import(freight, direct).named("zstd -dc \\| nix-store --import, again"),
            copy_in(freight, direct).named("nix copy --no-check-sigs --from file:// (zstd), again"),
        ];
        let title = format!("In, where all of it is already: {}", freight.name);
        section(title, "bytes in", self.options.runs, cases)
    }

    fn there_and_back(&self, freight: &Freight) -> Section {
        let fast = "ferry pack --level fast";
        let empty = || freight.empty();
        // Whatever is loaded is there before any of it is measured.
        freight.bring_all();
        let cases = vec![
            pack(freight, "fast"),
            pack(freight, "default"),
            export(freight, "-3", "/data/export-again.zst", fast),
            copy_out(freight, "zstd"),
            load(freight, "ferry load", &[]).after(empty),
            import(freight, "ferry load").after(empty),
            copy_in(freight, "ferry load").after(empty),
        ];
        section(freight.name.clone(), "bytes of file", self.options.runs, cases)
    }

    fn pieces(&self) -> Section {
        let (count, bytes) = (self.options.pieces, self.options.large_file);
        let size = crate::report::size(bytes);
        let name = format!("{count} files of {size} each, half of which does not compress");
        let make = |here: &Machine| {
            (0..count).map(|seed| generate::add_mixed_file(here, seed, bytes)).collect()
        };
        let freight = Freight { many_files: false, ..self.freight(name, make) };
        freight.bring_bundle();
        freight.bring_export();
        let empty = || freight.empty();
        let cases = vec![
            pack(&freight, "fast"),
            pack(&freight, "default"),
            export(&freight, "-3", "/data/export-again.zst", "ferry pack --level fast"),
            load(&freight, "ferry load", &[]).after(empty),
            import(&freight, "ferry load").after(empty),
        ];
        section(freight.name.clone(), "bytes of file", self.options.runs, cases)
    }

    /// Alone: `nix-store --export` has to be given every path as an argument, which so many are not.
    fn paths(&self) -> Section {
        let count = self.options.paths;
        let name = format!("{count} store paths of a small file each");
        let freight = self.freight(name, |here| vec![generate::add_small_paths(here, count)]);
        freight.bring_bundle();
        let cases = vec![
            pack(&freight, "default"),
            verify(&freight, "ferry verify"),
            load(&freight, "ferry load", &["--no-check-sigs"]).after(|| freight.empty()),
        ];
        section(freight.name.clone(), "bytes of file", self.options.runs, cases)
    }

    fn verify(&self) -> Section {
        let recipe = self.recipe(self.options.drvs);
        let freights = [recipe.as_ref(), self.noise(), self.text(), self.mixed()];
        let mut cases = Vec::new();
        for freight in freights {
            freight.bring_all();
            let ferry = format!("ferry verify: {}", freight.name);
            cases.push(verify(freight, &ferry));
            cases.push(
                Case::peer("zstd -dc \\| sha256sum (no more than whole)", &ferry, move || {
                    shell(&freight.there, &format!("zstd -q -dc {EXPORT} | sha256sum")).measure()
                })
                .bytes(move || size_of(&freight.there.path(EXPORT))),
            );
            cases.push(Case::peer("nix store verify of a cache", &ferry, move || {
                let cache = format!("file://{CACHE}");
                freight
                    .there
                    .command("nix")
                    .args(["store", "verify", "--all", "--no-trust", "--store", &cache])
                    .measure()
            }));
        }
        section("Verify", "bytes in", self.options.runs, cases)
    }

    fn growth(&self) -> Section {
        let n = self.options.drvs;
        let freights: Vec<Rc<Freight>> = [n / 28, n / 4, n].map(|n| self.recipe(n.max(100))).into();
        let mut cases = Vec::new();
        for freight in &freights {
            freight.bring_bundle();
            let case = pack(freight, "default");
            cases.push(case.named(format!("ferry pack: {}", freight.name)));
            cases.push(
                load(freight, &format!("ferry load: {}", freight.name), &[])
                    .after(|| freight.empty()),
            );
        }
        section("Growth", "bytes of file", self.options.runs, cases)
    }
}

fn pack<'a>(freight: &'a Freight, level: &'static str) -> Case<'a> {
    Case::ferry(&format!("ferry pack --level {level}"), move || freight.pack(level).measure())
        .bytes(move || freight.packed(level))
}

fn export<'a>(
    freight: &'a Freight,
    zstd: &'static str,
    file: &'static str,
    ferry: &str,
) -> Case<'a> {
    let what = format!("nix-store --export \\| zstd {zstd}");
    Case::peer(&what, ferry, move || freight.export(zstd, file).measure())
        .bytes(move || size_of(&freight.here.path(file)))
}

fn copy_out<'a>(freight: &'a Freight, compression: &'static str) -> Case<'a> {
    let directory = format!("/data/out-{compression}");
    let archive = freight.here.path(format!("{directory}.tar.gz"));
    let what = format!("nix copy --to file:// ({compression}), tar -cz");
    let place = freight.here.path(&directory);
    Case::peer(&what, "ferry pack --level default", move || {
        freight.copy_out(compression, &directory).measure()
    })
    .after(move || {
        freight.clear(&freight.here, &place);
        // Nix remembers what it has put there.
        freight.clear(&freight.here, &freight.here.path("/root/.cache"));
    })
    .bytes(move || size_of(&archive))
}

fn load<'a>(freight: &'a Freight, what: &str, store: &'static [&'static str]) -> Case<'a> {
    Case::ferry(what, move || freight.load(store).measure())
        .bytes(move || size_of(&freight.there.path(BUNDLE)))
}

fn verify<'a>(freight: &'a Freight, what: &str) -> Case<'a> {
    Case::ferry(what, || {
        freight.there.command("ferry").args(["verify", "--quiet", BUNDLE]).measure()
    })
    .bytes(|| size_of(&freight.there.path(BUNDLE)))
}

fn import<'a>(freight: &'a Freight, ferry: &str) -> Case<'a> {
    Case::peer("zstd -dc \\| nix-store --import", ferry, move || freight.import().measure())
        .bytes(move || size_of(&freight.there.path(EXPORT)))
}

fn copy_in<'a>(freight: &'a Freight, ferry: &str) -> Case<'a> {
    Case::peer("nix copy --no-check-sigs --from file:// (zstd)", ferry, move || {
        freight.nix_copy_in(&format!("file://{CACHE}")).measure()
    })
}

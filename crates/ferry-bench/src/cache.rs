//! Binary caches: written, read, and found complete.

use ferry_test_world::{MachineCommand, Origin};

use crate::freight::{CACHE, Freight, shell, tree_size};
use crate::measure::{Case, Section, section};

/// Where both write a cache.
const OUT: &str = "/data/cache-out";
/// Lists of all paths, one a line.
const ALL: &str = "/data/all-paths";

/// A cache of each compression, written from nothing.
pub(crate) fn out(freight: &Freight, compressions: &[&'static str], rounds: u32) -> Section {
    let place = freight.here.path(OUT);
    let empty = || {
        freight.clear(&freight.here, &place);
        // Nix remembers what it has put there.
        freight.clear(&freight.here, &freight.here.path("/root/.cache"));
    };
    let mut cases = Vec::new();
    for compression in compressions {
        let address = format!("file://{OUT}?compression={compression}");
        let ferry = format!("ferry cache create --compression {compression}");
        let nix = format!("nix copy --to file:// ({compression})");
        let create = {
            let address = address.clone();
            move || create(freight, &address).measure()
        };
        let copy = move || freight.nix_copy_out(&address).measure();
        cases.push(Case::ferry(&ferry, create).after(empty).bytes(|| tree_size(&place)));
        cases.push(Case::peer(&nix, &ferry, copy).after(empty).bytes(|| tree_size(&place)));
    }
    section(format!("A cache of {}", freight.name), "bytes out", rounds, cases)
}

/// The same cache read into an empty store, from a disk, and, unless it is of derivations (which
/// ferry cannot name in a cache that it cannot list), from a web server here.
pub(crate) fn into_store(freight: &Freight, rounds: u32) -> Section {
    freight.bring_cache();
    let origin = Origin::start();
    let mut places = vec![("file://", format!("file://{CACHE}"))];
    if !freight.is_recipe() {
        origin.serve_files(&freight.there.path(CACHE));
        places.push(("http://", origin.url()));
    }
    let empty = || freight.empty();
    let mut cases = Vec::new();
    for (shown, address) in places {
        let ferry = format!("ferry copy --from {shown}");
        let nix = format!("nix copy --no-check-sigs --from {shown}");
        let copy = {
            let address = address.clone();
            move || ferry_copy(freight, &["--from", &address, "--no-check-sigs"]).online().measure()
        };
        cases.push(Case::ferry(&ferry, copy).after(empty));
        let copy = move || freight.nix_copy_in(&address).online().measure();
        cases.push(Case::peer(&nix, &ferry, copy).after(empty));
    }
    let title = format!("Out of a cache (zstd), into an empty store: {}", freight.name);
    section(title, "bytes", rounds, cases)
}

/// A cache that has everything already, named by its roots and path by path.
pub(crate) fn again(freight: &Freight, rounds: u32) -> Section {
    let here = &freight.here;
    let roots = freight.roots.join(" ");
    freight.clear(here, &here.path(OUT));
    let address = format!("file://{OUT}?compression=zstd");
    create(freight, &address).ok();
    shell(here, &format!("nix-store --query --requisites {roots} > {ALL}")).ok();
    // As many arguments as there are paths do not fit otherwise.
    let all =
        |command: &str| shell(here, &format!("ulimit -s 65536; {command} $(cat {ALL})")).measure();
    let from_roots = "ferry cache create, again";
    let each_named = "ferry cache create, again, every path named";
    let nix_address = address.clone();
    let cases = vec![
        Case::ferry(from_roots, || create(freight, &address).measure()),
        Case::peer("nix copy --to file://, again", from_roots, move || {
            freight.nix_copy_out(&nix_address).measure()
        }),
        Case::ferry(each_named, || {
            all(&format!("ferry cache create --quiet --set x --to '{address}'"))
        }),
        Case::peer("nix copy --to file://, again, every path named", each_named, || {
            all(&format!("nix copy --to '{address}'"))
        }),
    ];
    let title = format!("A cache where all of it is already: {}", freight.name);
    section(title, "bytes", rounds, cases)
}

fn create(freight: &Freight, address: &str) -> MachineCommand {
    let create = ["cache", "create", "--quiet", "--set", freight.set(), "--to", address];
    freight.here.command("ferry").args(create).args(&freight.roots)
}

fn ferry_copy(freight: &Freight, options: &[&str]) -> MachineCommand {
    let copy = freight.there.command("ferry").args(["copy", "--quiet"]).args(options);
    if freight.is_recipe() { copy.arg("--all") } else { copy.args(&freight.roots) }
}

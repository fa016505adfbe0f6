//! Updates packed against what the other side has of the version before.

use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{assert_store_is_whole, carry, ferry, machine, pack_runtime, query, shell};

const FIRST: &str = "/tmp/first.ferry";
const UPDATE: &str = "/tmp/update.ferry";
const LIST: &str = "/tmp/island.txt";

/// Two versions of a library and of a program that is full of its path.
const VERSIONS: &str = r#"
    mkdir -p /data/$1/library-$1/lib /data/$1/program-$1/bin
    head -c 300000 /usr/bin/bash > /data/$1/library-$1/lib/library.so
    echo "$1" >> /data/$1/library-$1/lib/library.so
    library=$(nix-store --add /data/$1/library-$1)
    for part in $(seq 100); do
        echo "$library/lib/library.so part $part"
        head -c $((part * 1000)) /usr/bin/bash | tail -c 1000 | base64
    done > /data/$1/program-$1/bin/program
    ln -s "$library" /data/$1/program-$1/library
    nix-store --add /data/$1/program-$1
"#;

struct Versions {
    here: Machine,
    island: Machine,
    old: String,
    new: String,
}

impl Versions {
    fn new(world: &World, version: NixVersion) -> Self {
        let (here, island) = (machine(world, version), machine(world, version));
        let add = |version: &str| {
            let added = here.command("bash").args(["-euc", VERSIONS, "bash", version]).ok();
            added.trim().to_owned()
        };
        let (old, new) = (add("1.0"), add("1.1"));
        pack_runtime(&here, &old, FIRST).ok();
        carry(&here, &island, FIRST);
        ferry(&island, ["load", FIRST, "--to", "local", "--no-check-sigs"]).ok();
        let listed = island.command("nix-store").args(["--query", "--requisites", &old]).ok();
        here.write(LIST, listed);
        Self { here, island, old, new }
    }

    fn pack(&self, base: &str) -> usize {
        pack_runtime(&self.here, &self.new, UPDATE).args(["--base", base]).ok();
        carry(&self.here, &self.island, UPDATE);
        self.here.read(UPDATE).len()
    }
}

#[test]
fn an_update_crosses_as_the_difference() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let versions = Versions::new(&world, version);
        let Versions { here, island, old, new } = &versions;
        pack_runtime(here, new, "/tmp/whole.ferry").ok();
        let whole = here.read("/tmp/whole.ferry").len();
        for base in [LIST, FIRST] {
            let size = versions.pack(base);
            assert!(size * 20 < whole, "{version}, {base}: {size} bytes of {whole}");
        }
        ferry(island, ["verify", UPDATE]).fails();
        ferry(island, ["verify", UPDATE, "--against", "local"]).ok();
        let load = ["load", UPDATE, "--to", "local", "--no-check-sigs"];
        ferry(island, load).ok();
        assert_eq!(query(island, &["--requisites", new]), query(here, &["--requisites", new]));
        assert_store_is_whole(island);
        shell(island, &format!("grep -q 'part 100' {old}/bin/program {new}/bin/program")).ok();
    }
}

#[test]
fn a_base_that_is_not_what_it_was_is_named_and_nothing_is_added() {
    let Some(world) = World::open() else { return };
    let versions = Versions::new(&world, NixVersion::ALL[0]);
    versions.pack(LIST);
    let Versions { island, old, new, .. } = &versions;
    let program = format!("{old}/bin/program");
    shell(
        island,
        &format!(
            "chmod u+w {program}; echo changed | dd of={program} bs=1 seek=50000 conv=notrunc"
        ),
    )
    .ok();
    let load = ["load", UPDATE, "--to", "local", "--no-check-sigs"];
    let refused = ferry(island, load).fails();
    assert!(refused.stderr.contains(old.as_str()), "{}", refused.stderr);
    shell(island, &format!("! nix-store --check-validity {new} 2>/dev/null")).ok();
}

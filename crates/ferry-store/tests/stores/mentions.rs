//! Where references stand, as `nix why-depends` shows it.

use ferry_store::reference_sites::{Site, SiteKind, reference_sites};
use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{path, store};

/// The places that Nix shows for one reference of `object`: the lines between its path and that
/// of what it refers to.
fn shown(machine: &Machine, object: &str, reference: &str) -> Vec<String> {
    let args = ["why-depends", "--precise", "--all", object, reference];
    let shown = machine.command("nix").args(args).ok();
    let mut plain = String::new();
    let mut characters = shown.chars();
    while let Some(character) = characters.next() {
        match character {
            // `ESC [ … m`
            '\u{1b}' => drop(characters.find(|character| *character == 'm')),
            character => plain.push(character),
        }
    }
    let lines = plain.lines().skip(1).take_while(|line| !line.trim_start().starts_with('→'));
    let tree = |character| matches!(character, '└' | '├' | '─' | '│' | ' ');
    lines.map(|line| line.trim_start_matches(tree).to_owned()).collect()
}

/// A site as Nix shows it.
fn show(site: &Site) -> String {
    let file = match String::from_utf8(site.file.clone()).unwrap() {
        empty if empty.is_empty() => "/".to_owned(),
        file => file,
    };
    match site.kind {
        SiteKind::Contents => format!("{file}: …{}…", site.context),
        SiteKind::SymlinkTarget => format!("{file} -> {}", site.context),
    }
}

#[test]
fn places_of_references_are_those_that_nix_shows() {
    let Some(world) = World::open() else { return };
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let machine = Machine::new(&world, version);
        let expression = machine.expression("mentions.nix");
        let build = |attribute: &str| {
            let build = machine.command("nix-build").arg(&expression);
            build.args(["-A", attribute, "--no-out-link"]).ok()
        };
        let [above, mentions, one, two] = ["above", "mentions", "one", "two"].map(build);
        let store = store(&machine);
        let all = [&mentions, &one, &two].map(|text| path(text));
        for (object, reference, count) in
            [(&above, &mentions, 1), (&mentions, &one, 4), (&mentions, &two, 6)]
        {
            let expected = shown(&machine, object, reference);
            assert_eq!(expected.len(), count, "{expected:#?}");
            // One alone, and one of several.
            for wanted in [&[path(reference)][..], &all] {
                let sites = reference_sites(&store, &path(object), wanted).unwrap();
                let sites = sites.iter().filter(|site| site.reference == path(reference));
                let found: Vec<String> = sites.map(show).collect();
                assert_eq!(found, expected, "{object} to {reference}, Nix {version}");
            }
        }
        let own = reference_sites(&store, &path(&mentions), &[path(&mentions)]).unwrap();
        let own: Vec<(&[u8], u64)> = own.iter().map(|site| (&site.file[..], site.offset)).collect();
        assert_eq!(own, [(&b"self"[..], 2 + "/nix/store/".len() as u64)]);
    }
}

//! The example in the description of the format is what is written, byte for byte.

use ferry_formats::nar;
use nix_derivation::{
    CAHash, DerivationBuilder, HashAlgorithm, InputDerivation, Output, hash_bytes,
};

use crate::derivations::World;
use crate::objects::Object;
use crate::packed::{packed, sections};

const DESCRIPTION: &str = include_str!("../../../../docs/bundle-format.md");

/// A download, and a derivation that mentions it.
fn objects() -> Vec<Object> {
    let mut world = World::new("/nix/store");
    let hash = hash_bytes(HashAlgorithm::Md5, b"");
    let fetch = DerivationBuilder::new("a", "s", "f")
        .output("out", Output::Fixed { ca: CAHash::Flat(hash) });
    let fetch = world.add(fetch);
    let output = world.output(&fetch, "out");
    let build = DerivationBuilder::new("b-1", "s", "/sh")
        .input_addressed_output("out")
        .input_derivation(fetch, InputDerivation::new(["out"]))
        .argument("-e")
        .environment("name", "b-1")
        .environment("src", output);
    world.add(build);
    world.objects
}

/// The bytes in the block of the description that begins with `DRVS`.
fn described() -> Vec<u8> {
    let block = DESCRIPTION.split("```").find(|block| block.starts_with("text\n44 52 56 53"));
    let lines = block.unwrap().lines().skip(1);
    let digits: String = lines.map(|line| line.split(" | ").next().unwrap()).collect();
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn the_example_in_the_description_is_what_is_written() {
    let bundle = packed(&objects());
    let sections = sections(&bundle);
    let section = sections.iter().find(|section| &section.name == b"DRVS").unwrap();
    let length = (section.contents.len() as u64).to_le_bytes();
    let written = [&b"DRVS"[..], &length, &section.contents].concat();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
    assert_eq!(hex(&written), hex(&described()));
    // And it is the derivations that the description shows.
    for object in objects() {
        let text = nar::file_contents(&object.nar).unwrap();
        let text = std::str::from_utf8(text).unwrap();
        assert!(DESCRIPTION.contains(text) && DESCRIPTION.contains(&object.rendered()), "{text}");
    }
}

//! Makes seeds out of a bundle: `seeds FILE.ferry DIRECTORY`.
//!
//! They go into a directory a target, each what the target of that name takes.

use std::path::Path;

use ferry_fuzz::{Section, give_streams, sections};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, directory] = arguments.as_slice() else {
        eprintln!("usage: seeds FILE.ferry DIRECTORY");
        std::process::exit(2);
    };
    let bundle = std::fs::read(file).expect("the bundle can be read");
    let name = Path::new(file).file_stem().expect("it has a name").to_string_lossy().into_owned();
    let put = |target: &str, contents: &[u8]| {
        let place = Path::new(directory).join(target);
        std::fs::create_dir_all(&place).expect("a directory can be made");
        std::fs::write(place.join(&name), contents).expect("a seed can be written");
    };
    put("header", &bundle);
    for Section { name, contents } in sections(&bundle) {
        match &name {
            b"INDX" => put("index", &plain_streams(&contents)),
            b"DRVS" => put("derivations", &plain_streams(&contents)),
            b"BLCK" => {
                let frame = contents.get(1..).unwrap_or_default();
                put("payload", &zstd::decode_all(frame).unwrap_or(contents));
            }
            _ => {}
        }
    }
}

/// Three streams as a target takes them.
fn plain_streams(section: &[u8]) -> Vec<u8> {
    let mut rest = section;
    let mut number = || {
        let mut number = 0u64;
        for shift in (0..).step_by(7) {
            let (byte, behind) = rest.split_first().expect("a number");
            rest = behind;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        usize::try_from(number).expect("a size")
    };
    let sizes: [(usize, usize); 3] = std::array::from_fn(|_| (number(), number()));
    let parts = sizes.map(|(plain, packed)| {
        let (stream, behind) = rest.split_at(packed);
        rest = behind;
        match plain == packed {
            true => stream.to_vec(),
            false => zstd::decode_all(stream).expect("a stream that decompresses"),
        }
    });
    give_streams([&parts[0], &parts[1], &parts[2]])
}

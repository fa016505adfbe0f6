use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use ferry_formats::{ContentAddress, NarHash, NixHash, StoreDir, StorePath, nar};
use sha2::{Digest as _, Sha256, Sha512};

use super::{ExportStream, ExportWriter, is_export};
use crate::daemon::wire::{write_bytes, write_strings, write_u64};
use crate::progress::Silent;
use crate::{Error, Result, Store as _, copy};

/// One object as it stands in a stream.
struct Object<'a> {
    path: &'a str,
    nar: Vec<u8>,
    references: Vec<&'a str>,
    deriver: &'a str,
}

fn stream(objects: &[Object<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for object in objects {
        write_u64(&mut out, 1).unwrap();
        out.extend_from_slice(&object.nar);
        write_u64(&mut out, super::MAGIC).unwrap();
        write_bytes(&mut out, object.path.as_bytes()).unwrap();
        write_strings(&mut out, object.references.iter()).unwrap();
        write_bytes(&mut out, object.deriver.as_bytes()).unwrap();
        write_u64(&mut out, 0).unwrap();
    }
    write_u64(&mut out, 0).unwrap();
    out
}

fn read(bytes: &[u8]) -> Result<ExportStream> {
    let scratch = std::env::temp_dir();
    ExportStream::from_stream(bytes, "x", &StoreDir::default(), &scratch)
}

fn reason(bytes: &[u8]) -> String {
    match read(bytes) {
        Err(Error::Export { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was read"),
    }
}

const LIBRARY: &str = "/nix/store/00000000000000000000000000000000-library";
const PROGRAM: &str = "/nix/store/11111111111111111111111111111111-program";
const DERIVER: &str = "/nix/store/22222222222222222222222222222222-program.drv";

fn two() -> Vec<u8> {
    let library = Object {
        path: LIBRARY,
        nar: nar::of_file(b"library"),
        references: vec![LIBRARY],
        deriver: "",
    };
    let program = Object {
        path: PROGRAM,
        nar: nar::of_file(b"program"),
        references: vec![LIBRARY],
        deriver: DERIVER,
    };
    stream(&[library, program])
}

fn path(text: &str) -> StorePath {
    StoreDir::default().parse_path(text.as_bytes()).unwrap()
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_read_is_written_again_as_it_was() {
    let bytes = two();
    assert!(is_export(&bytes));
    let read = read(&bytes).unwrap();
    let program = read.path_info(&path(PROGRAM)).unwrap().unwrap();
    assert_eq!(program.nar_hash, NarHash::of(&nar::of_file(b"program")));
    assert_eq!(program.references.to_vec(), [path(LIBRARY)]);
    assert_eq!(program.deriver, Some(path(DERIVER)));

    let sink = Shared::default();
    let writer = ExportWriter::new(sink.clone(), "y".to_owned(), StoreDir::default());
    let infos = read.path_infos().iter().map(|info| (info.path.clone(), info.clone()));
    copy(&read, &writer, infos.collect::<BTreeMap<_, _>>(), &[], &Silent).unwrap();
    assert_eq!(*sink.0.lock().unwrap(), bytes);
}

#[test]
fn a_stream_that_ends_anywhere_but_at_its_end_is_refused() {
    let bytes = two();
    for end in 0..bytes.len() {
        assert!(matches!(read(&bytes[..end]), Err(Error::Export { .. })), "{end} bytes");
    }
    assert!(reason(&[&bytes[..], b"more"].concat()).contains("something follows its end"));
}

#[test]
fn lengths_that_lie_are_errors_and_not_allocations() {
    let bytes = two();
    for start in (0..bytes.len()).step_by(8) {
        for lie in [u64::MAX, u64::MAX / 2, 1 << 40] {
            let mut lying = bytes.clone();
            lying[start..start + 8].copy_from_slice(&lie.to_le_bytes());
            // Where it stands for what may be anything, such as contents, it is no length.
            if let Err(error) = read(&lying) {
                assert!(matches!(error, Error::Export { .. }), "{error}");
            }
        }
    }
}

#[test]
fn numbers_that_are_not_nixs_are_refused() {
    let mut bytes = two();
    bytes[0] = 2;
    assert!(!is_export(&bytes));
    assert!(reason(&bytes).contains("not something that `nix-store --export` writes"));
    let mut bytes = two();
    let magic = bytes.windows(8).position(|eight| eight == super::MAGIC.to_le_bytes()).unwrap();
    bytes[magic] ^= 1;
    assert!(reason(&bytes).contains("what stands behind a NAR"));
}

#[test]
fn paths_of_two_store_directories_are_refused() {
    let other = Object {
        path: "/gnu/store/11111111111111111111111111111111-program",
        nar: nar::of_file(b""),
        references: vec![],
        deriver: "",
    };
    let library = Object { path: LIBRARY, nar: nar::of_file(b""), references: vec![], deriver: "" };
    assert!(reason(&stream(&[library, other])).contains("is not a store path in /nix/store"));
}

#[test]
fn one_path_with_two_contents_is_refused() {
    let object = |contents: &[u8]| Object {
        path: LIBRARY,
        nar: nar::of_file(contents),
        references: vec![],
        deriver: "",
    };
    assert_eq!(read(&stream(&[object(b"a"), object(b"a")])).unwrap().path_infos().len(), 1);
    assert!(reason(&stream(&[object(b"a"), object(b"b")])).contains("stands in it twice"));
}

#[test]
fn a_path_that_follows_from_its_content_gets_its_content_address_again() {
    let store_dir = StoreDir::default();
    let reference = path(LIBRARY);
    let digest: [u8; 32] = Sha256::digest(b"text").into();
    let nar_hash = NixHash::Sha256(NarHash::of(&nar::of_file(b"text")).0);
    for (ca, references) in [
        (ContentAddress::Text(digest), vec![]),
        (ContentAddress::Text(digest), vec![&reference]),
        (ContentAddress::Flat(NixHash::Sha256(digest)), vec![]),
        (ContentAddress::Nar(nar_hash.clone()), vec![]),
        (ContentAddress::Nar(nar_hash), vec![&reference]),
    ] {
        let made = store_dir.build_ca_path("x", &ca, references.iter().copied(), false).unwrap();
        let object = Object {
            path: &store_dir.render_path(&made),
            nar: nar::of_file(b"text"),
            references: references.iter().map(|_| LIBRARY).collect(),
            deriver: "",
        };
        let read = read(&stream(&[object])).unwrap();
        assert_eq!(read.path_infos()[0].ca, Some(ca));
    }
}

#[test]
fn a_fixed_output_gets_its_content_address_from_its_derivation() {
    let store_dir = StoreDir::default();
    let digest: [u8; 64] = Sha512::digest(b"download").into();
    let ca = ContentAddress::Flat(NixHash::Sha512(Box::new(digest)));
    let output = store_dir.build_ca_path("x", &ca, [], false).unwrap();
    let output = store_dir.render_path(&output);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!(
        r#"Derive([("out","{output}","sha512","{hex}")],[],[],"s","b",[],[("out","{output}")])"#
    );
    let derivation = store_dir.build_text_path("x.drv", text.as_bytes(), []).unwrap();
    let derivation = store_dir.render_path(&derivation);
    let bytes = stream(&[
        Object {
            path: &output,
            nar: nar::of_file(b"download"),
            references: vec![],
            deriver: &derivation,
        },
        Object {
            path: &derivation,
            nar: nar::of_file(text.as_bytes()),
            references: vec![],
            deriver: "",
        },
    ]);
    let read = read(&bytes).unwrap();
    assert_eq!(read.require(&path(&output)).unwrap().ca, Some(ca));
    assert_eq!(read.derivers(&path(&output)).unwrap(), [path(&derivation)]);
}

//! Volumes lost and damaged in every way, of a bundle that is any bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::header::{HEADER, Header, capacity};
use super::*;
use crate::{BundleError, Result};

const LEAF: u32 = 64;

fn bundle(length: usize) -> Vec<u8> {
    let digests = (0_u32..).flat_map(|seed| Sha256::digest(seed.to_le_bytes()).to_vec());
    digests.take(length).collect()
}

/// Files in a directory of their own.
struct Files {
    directory: tempfile::TempDir,
    bundle: Vec<u8>,
    leaves: u64,
    parity: u32,
    files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// A bundle of `length` bytes in volumes of `leaves` pieces of 64 bytes.
    fn new(length: usize, leaves: u64, parity: u32) -> Self {
        Self::of(&bundle(length), leaves, parity)
    }

    fn of(bundle: &[u8], leaves: u64, parity: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bundle = bundle.to_vec();
        let mut files = Self { directory, bundle, leaves, parity, files: BTreeMap::new() };
        let report = files.write_to(files.directory.path());
        files.files = read_all(files.directory.path());
        let files = files;
        let sizes = || files.files.values().map(|bytes| bytes.len() as u64);
        assert_eq!(report.files.len(), files.files.len());
        assert_eq!(report.size, sizes().sum::<u64>());
        assert!(sizes().all(|size| size < files.limit()));
        files
    }

    fn limit(&self) -> u64 {
        HEADER as u64 + self.leaves * 96 + 1
    }

    fn write_to(&self, directory: &Path) -> VolumesReport {
        let (file, begun) = (directory.join("b.ferry"), Box::new(|_: &Path| {}));
        let mut writer =
            VolumeWriter::with_leaves(&file, self.limit(), self.parity, LEAF, begun).unwrap();
        writer.write_all(&self.bundle).unwrap();
        writer.finish().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Puts all files back as they were written.
    fn restore(&self) {
        self.files.iter().for_each(|(name, bytes)| self.write(name, bytes));
    }

    fn find(&self, name: &str) -> Result<Volumes> {
        Ok(Volumes::find(&[self.path(name)])?.expect("they are volumes"))
    }
}

fn read_all(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

/// The bundle, or why it cannot be read.
fn joined(volumes: &Volumes) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut reader = volumes.open().map_err(|error| error.to_string())?;
    reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn whole(volumes: &Volumes) -> Vec<bool> {
    volumes.check().iter().map(|volume| volume.condition == Condition::Whole).collect()
}

#[test]
fn a_bundle_comes_out_as_it_went_in_whatever_its_size() {
    for length in (1..200).chain([255, 256, 257, 1000]) {
        for (leaves, parity) in [(1, 0), (2, 1), (3, 2), (100, 1)] {
            let files = Files::new(length, leaves, parity);
            for name in files.names() {
                assert_eq!(joined(&files.find(&name).unwrap()).unwrap(), bundle(length));
            }
        }
    }
}

#[test]
fn the_volumes_are_found_by_the_name_that_the_bundle_would_have() {
    let files = Files::new(500, 2, 1);
    assert_eq!(files.names()[0], "b.001.ferry");
    assert_eq!(joined(&files.find("b.ferry").unwrap()).unwrap(), bundle(500));
    files.remove("b.001.ferry");
    assert_eq!(joined(&files.find("b.001.ferry").unwrap()).unwrap(), bundle(500));
    assert!(Volumes::find(&[files.path("other.ferry")]).unwrap().is_none());
}

#[test]
fn volumes_can_have_any_names_and_places_if_all_are_given() {
    let files = Files::new(500, 2, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut given: Vec<PathBuf> = Vec::new();
    for (name, place) in files.names().into_iter().zip(0..) {
        let path = elsewhere.path().join(format!("disk {place}"));
        fs::rename(files.path(&name), &path).unwrap();
        given.insert(0, path);
    }
    let volumes = Volumes::find(&given).unwrap().unwrap();
    assert_eq!(joined(&volumes).unwrap(), bundle(500));
}

#[test]
fn the_same_bytes_make_the_same_volumes() {
    assert_eq!(Files::new(700, 2, 2).files, Files::new(700, 2, 2).files);
}

#[test]
fn any_byte_changed_in_any_volume_is_noticed_and_made_good_by_parity() {
    let files = Files::new(400, 2, 1);
    for (name, bytes) in &files.files {
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x20;
            files.write(name, &damaged);
            let what = format!("{name}, byte {place}");
            let volumes = files.find(name).unwrap();
            assert_eq!(joined(&volumes).unwrap(), bundle(400), "{what}");
            let wrong = whole(&volumes).iter().filter(|whole| !**whole).count();
            assert_eq!(wrong, 1, "{what}");
        }
        files.write(name, bytes);
    }
}

#[test]
fn any_byte_changed_without_parity_is_an_error_or_changes_nothing() {
    let files = Files::new(300, 2, 0);
    for (name, bytes) in &files.files {
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            files.write(name, &damaged);
            let volumes = files.find(name).unwrap();
            assert!(whole(&volumes).contains(&false), "{name}, byte {place}");
            match joined(&volumes) {
                // What is in a header stands in the others as well.
                Ok(read) => assert!(place < HEADER && read == bundle(300), "{name}, byte {place}"),
                Err(error) => assert!(error.contains(name.as_str()), "{error}"),
            }
        }
        files.write(name, bytes);
    }
}

#[test]
fn a_volume_cut_short_anywhere_is_made_good_by_parity() {
    let files = Files::new(400, 2, 1);
    for (name, bytes) in &files.files {
        for length in 0..bytes.len() {
            files.write(name, &bytes[..length]);
            let volumes = files.find("b.002.ferry").unwrap();
            assert_eq!(joined(&volumes).unwrap(), bundle(400), "{name}, {length} bytes");
            assert!(whole(&volumes).contains(&false));
        }
        files.write(name, bytes);
    }
    files.write("b.001.ferry", &[files.files["b.001.ferry"].as_slice(), b"more"].concat());
    assert!(!whole(&files.find("b.001.ferry").unwrap())[0]);
}

#[test]
fn as_many_volumes_can_be_lost_as_there_is_parity_and_are_written_again() {
    let files = Files::new(900, 3, 2);
    let names = files.names();
    assert_eq!(names.len(), 7);
    for first in 0..names.len() {
        for second in first..names.len() {
            files.remove(&names[first]);
            let _ = fs::remove_file(files.path(&names[second]));
            let left = names.iter().find(|name| files.path(name).exists()).unwrap();
            let volumes = files.find(left).unwrap();
            assert_eq!(joined(&volumes).unwrap(), bundle(900), "{first}, {second}");
            let again = volumes.repair(Box::new(|_| {})).unwrap();
            assert_eq!(again.len(), if first == second { 1 } else { 2 });
            assert_eq!(read_all(files.directory.path()), files.files, "{first}, {second}");
        }
    }
}

#[test]
fn one_more_lost_than_there_is_parity_is_an_error_with_names() {
    let files = Files::new(900, 3, 2);
    for name in ["b.002.ferry", "b.003.ferry", "b.007.ferry"] {
        files.remove(name);
    }
    let volumes = files.find("b.001.ferry").unwrap();
    let Err(error) = volumes.open() else { panic!("that is not enough") };
    assert!(matches!(&error, BundleError::MissingVolumes { missing, .. } if missing.len() == 3));
    let error = error.to_string();
    assert!(error.contains("3 of 7 volumes"), "{error}");
    for line in ["volume 2: ", "volume 3: ", "volume 7: "] {
        assert!(error.contains(line), "{error}");
    }
    assert!(error.contains("b.003.ferry"), "{error}");
    let before = read_all(files.directory.path());
    assert!(volumes.repair(Box::new(|_| {})).is_err());
    assert_eq!(read_all(files.directory.path()), before);
}

/// Flips a byte of one piece.
fn damage(files: &Files, name: &str, piece: usize) {
    let mut bytes = fs::read(files.path(name)).unwrap();
    bytes[HEADER + piece * 96 + 5] ^= 1;
    files.write(name, &bytes);
}

#[test]
fn damage_in_several_volumes_in_different_places_is_made_good() {
    // Three of data with four pieces each, and one of parity.
    let files = Files::new(768, 4, 1);
    for (name, piece) in
        [("b.001.ferry", 0), ("b.002.ferry", 1), ("b.003.ferry", 2), ("b.004.ferry", 3)]
    {
        damage(&files, name, piece);
    }
    let volumes = files.find("b.001.ferry").unwrap();
    assert_eq!(joined(&volumes).unwrap(), bundle(768));
    assert_eq!(whole(&volumes), [false; 4]);
    let recovered: Vec<u64> = volumes.recovered().iter().map(|(_, pieces)| *pieces).collect();
    assert_eq!(recovered, [1, 1, 1]);
    volumes.repair(Box::new(|_| {})).unwrap();
    assert_eq!(read_all(files.directory.path()), files.files);

    // Two in the same place are too much.
    damage(&files, "b.001.ferry", 2);
    damage(&files, "b.003.ferry", 2);
    let error = joined(&files.find("b.002.ferry").unwrap()).unwrap_err();
    assert!(error.contains("b.001.ferry") && error.contains("b.003.ferry"), "{error}");
    assert!(error.contains("between offsets 333 and 397"), "{error}");
}

#[test]
fn volumes_of_two_bundles_under_the_same_names_are_not_mixed() {
    let files = Files::new(500, 2, 0);
    let other = Files::new(501, 2, 0);
    // As if a second packing had been killed when the first of its volumes were in place.
    files.write("b.001.ferry", &other.files["b.001.ferry"]);
    for name in ["b.001.ferry", "b.002.ferry"] {
        let error = joined(&files.find(name).unwrap()).unwrap_err();
        assert!(error.contains("a volume of another bundle"), "{error}");
    }
    let both = [files.path("b.001.ferry"), files.path("b.002.ferry")];
    assert!(matches!(Volumes::find(&both), Err(BundleError::Volumes { .. })));
    files.restore();
    assert_eq!(joined(&files.find("b.001.ferry").unwrap()).unwrap(), bundle(500));
}

/// What stands in the directory at every moment at which writing `new` over `old` may stop, once
/// all of `new` is whole: and which of the two can be read then.
fn stops<'a>(old: &'a Files, new: &'a Files) -> Vec<(BTreeMap<String, Vec<u8>>, &'a Files)> {
    let waiting = |name: &String| format!(".{name}.new");
    let count = new.files.len();
    let mut stops = Vec::new();
    for moved in 0..=count {
        let mut there = old.files.clone();
        let waits = new.files.iter().take(moved);
        there.extend(waits.map(|(name, bytes)| (waiting(name), bytes.clone())));
        stops.push((there, old));
    }
    for moved in 1..=count {
        let mut there = old.files.clone();
        there.extend(new.files.clone().into_iter().take(moved));
        let waits = new.files.iter().skip(moved);
        there.extend(waits.map(|(name, bytes)| (waiting(name), bytes.clone())));
        stops.push((there, new));
    }
    stops
}

#[test]
fn volumes_written_over_others_are_one_bundle_or_the_other_wherever_it_stops() {
    let (old, same, less, more) = (
        Files::new(700, 2, 1),
        Files::of(&bundle(1400)[700..], 2, 1),
        Files::new(300, 2, 0),
        Files::new(1300, 2, 2),
    );
    for (old, new) in [(&old, &same), (&old, &less), (&old, &more), (&more, &old)] {
        for (there, whole) in stops(old, new) {
            let directory = tempfile::tempdir().unwrap();
            for (name, bytes) in &there {
                fs::write(directory.path().join(name), bytes).unwrap();
            }
            let ours = whole.names();
            let read = |files: &[PathBuf]| {
                let volumes = Volumes::find(files).unwrap().unwrap();
                assert_eq!(joined(&volumes).unwrap(), whole.bundle);
                volumes
            };
            for name in ours.iter().chain(["b.ferry".to_owned()].iter()) {
                read(&[directory.path().join(name)]);
            }
            let all: Vec<PathBuf> = ours.iter().map(|name| directory.path().join(name)).collect();
            let there: Vec<PathBuf> = all.iter().filter(|path| path.exists()).cloned().collect();
            // Finished by a repair, and by writing once more.
            let volumes = read(&there);
            assert_eq!(volumes.repair(Box::new(|_| {})).unwrap().len(), 0);
            let left = read_all(directory.path());
            assert!(whole.files.iter().all(|(name, bytes)| left.get(name) == Some(bytes)));
            new.write_to(directory.path());
            let left = read_all(directory.path());
            assert!(new.files.iter().all(|(name, bytes)| left.get(name) == Some(bytes)));
            assert!(left.keys().all(|name| !name.starts_with('.')));
        }
    }
}

#[test]
fn fewer_volumes_under_the_same_names_leave_none_of_the_others_behind() {
    let files = Files::new(1300, 2, 2);
    let fewer = Files::new(300, 2, 0);
    assert!(files.files.len() > fewer.files.len());
    files.write("b.900.ferry", b"not a volume");
    fewer.write_to(files.directory.path());
    let mut expected = fewer.files.clone();
    expected.insert("b.900.ferry".to_owned(), b"not a volume".to_vec());
    assert_eq!(read_all(files.directory.path()), expected);
}

#[test]
fn a_size_that_no_volumes_could_have_is_refused() {
    let files = Files::new(300, 2, 0);
    let mut header = Header::decode(&files.files["b.001.ferry"][..HEADER]).unwrap();
    let leaf = u64::from(header.layout.leaf);
    header.layout.capacity = (1 << 59) / leaf * leaf;
    header.layout.size = header.layout.capacity;
    header.layout.data = 1;
    header.number = 1;
    for name in files.names() {
        fs::remove_file(files.path(&name)).unwrap();
    }
    files.write("b.001.ferry", &header.encode());
    let error = Volumes::find(&[files.path("b.001.ferry")]).err().unwrap().to_string();
    assert!(error.contains("has 576460752303423488 bytes"), "{error}");
    // Such as may be there, and are not, are counted and not looked for one by one.
    header.layout.capacity = 1 << 29;
    header.layout.size = header.layout.capacity;
    files.write("b.001.ferry", &header.encode());
    let volumes = files.find("b.001.ferry").unwrap();
    let checked = volumes.check();
    let condition = &checked.first().unwrap().condition;
    let Condition::Damaged { pieces, .. } = condition else { panic!("{condition:?}") };
    assert_eq!(*pieces, (1 << 29) / leaf);
}

#[test]
fn nothing_appears_before_all_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("b.ferry");
    let mut writer = VolumeWriter::with_leaves(&file, 600, 1, LEAF, Box::new(|_| {})).unwrap();
    writer.write_all(&bundle(5000)).unwrap();
    assert!(read_all(directory.path()).keys().all(|name| name.starts_with(".ferry-")));
    drop(writer);
    assert!(read_all(directory.path()).is_empty());
    // More volumes than names have digits for.
    let mut writer = VolumeWriter::with_leaves(&file, 300, 1, LEAF, Box::new(|_| {})).unwrap();
    let error = writer.write_all(&bundle(65 * 1000)).unwrap_err().to_string();
    assert!(error.contains("more than 999 volumes"), "{error}");
    drop(writer);
    assert!(read_all(directory.path()).is_empty());
    assert!(VolumeWriter::new(&file, 1000, 0, Box::new(|_| {})).is_err());
    assert!(VolumeWriter::new(&file, 1 << 20, 999, Box::new(|_| {})).is_err());
}

#[test]
fn four_gibibytes_are_volumes_that_fat32_can_take() {
    let layout = header::Layout {
        data: 3,
        parity: 1,
        size: 10 << 30,
        capacity: capacity(4 << 30, header::LEAF).unwrap(),
        leaf: header::LEAF,
    };
    let size = layout.file_size(1);
    assert!(size < 4 << 30 && size > (4 << 30) - (128 << 10), "{size}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_header_of_any_bytes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(header::Header::decode(&bytes).is_err());
    }

    #[test]
    fn reading_from_any_place_is_reading_from_there(length in 1_usize..2000, from in 0_u64..2100) {
        let files = Files::new(length, 3, 1);
        fs::remove_file(files.path("b.001.ferry")).unwrap();
        let volumes = files.find("b.002.ferry").unwrap();
        let mut reader = volumes.open().unwrap();
        reader.seek(SeekFrom::Start(from)).unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        let from = usize::try_from(from).unwrap().min(length);
        prop_assert_eq!(read, &bundle(length)[from..]);
    }
}

//! Every derivation of a real system, read, written again, and its paths computed again: a `.drv`
//! holds Nix's own answers.
//!
//! The data are another project's and stay out of this repository: they are read from
//! `../shared/data` beside it, where that is there.

// A test fails by panicking, and says loudly what it did not test.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;

use ferry_formats::derivation::{self, Derivation, OutputPaths};
use ferry_formats::derivation_json;
use ferry_formats::{StoreDir, StorePath};

/// The derivations by store path.
fn by_path() -> Option<BTreeMap<StorePath, Vec<u8>>> {
    let path = |base: String| StorePath::from_basename(base.as_bytes()).expect("a store path");
    let texts = ferry_test_world::real_derivations()?;
    Some(texts.into_iter().map(|(base, text)| (path(base), text)).collect())
}

#[test]
fn each_is_written_as_it_was_read_and_has_the_paths_that_nix_gave_it() {
    let Some(texts) = by_path() else { return };
    assert_eq!(texts.len(), 1021);
    let store_dir = StoreDir::default();
    let mut outputs = OutputPaths::default();
    let mut output_count = 0;
    for (path, text) in &texts {
        let parsed: Derivation =
            derivation::parse(&store_dir, path, text).expect("a derivation is parsed");
        assert_eq!(&parsed.to_aterm_bytes(), text, "{path} is not written as it was read");

        let references = parsed.input_derivations().keys().chain(parsed.input_sources());
        let computed = store_dir.build_text_path(path.name(), text, references).expect("a path");
        assert_eq!(&computed, path);

        let mut lookup = |input: &StorePath| {
            texts.get(input).cloned().ok_or_else(|| "it is not in the set".to_owned())
        };
        outputs.check(path, &parsed, &mut lookup).expect("the output paths are right");
        output_count += derivation::outputs(&parsed).expect("outputs").len();
    }
    assert!(output_count > texts.len(), "some have several outputs");
}

#[test]
fn a_derivation_with_one_wrong_output_path_is_refused() {
    let Some(texts) = by_path() else { return };
    let store_dir = StoreDir::default();
    let mut refused = 0;
    for (path, text) in texts.iter().take(100) {
        let parsed = derivation::parse(&store_dir, path, text).expect("a derivation is parsed");
        let (_, Some(output)) = derivation::outputs(&parsed).expect("outputs").remove(0) else {
            continue;
        };
        // Another hash wherever the output's stands: well-formed, and wrong.
        let right = output.to_basename();
        let wrong = format!("00000000000000000000000000000000-{}", output.name());
        let forged = String::from_utf8_lossy(text).replace(&right, &wrong);
        let parsed = derivation::parse(&store_dir, path, forged.as_bytes()).expect("it is parsed");
        let mut lookup = |input: &StorePath| {
            texts.get(input).cloned().ok_or_else(|| "it is not in the set".to_owned())
        };
        let error = OutputPaths::default().check(path, &parsed, &mut lookup).expect_err("wrong");
        assert!(error.to_string().contains(path.name()), "{error}");
        refused += 1;
    }
    assert!(refused > 90, "{refused}");
}

#[test]
fn each_is_the_same_after_it_was_json() {
    let Some(texts) = by_path() else { return };
    let store_dir = StoreDir::default();
    for (path, text) in &texts {
        let parsed = derivation::parse(&store_dir, path, text).expect("a derivation is parsed");
        let json = derivation_json::write(&parsed).expect("a derivation is JSON");
        let read = derivation_json::read(&json, &store_dir).expect("JSON is a derivation");
        let [given] = read.as_slice() else { panic!("{path} became {}", read.len()) };
        assert_eq!(&given.derivation.to_aterm_bytes(), text, "{path}");
    }
}

#[test]
fn each_says_where_it_is_fetched_from_and_whether_it_is_substituted() {
    let Some(texts) = by_path() else { return };
    let (mut fetched, mut never) = (0, 0);
    for (path, text) in &texts {
        let parsed = derivation::parse(&StoreDir::default(), path, text).expect("it is parsed");
        let text = String::from_utf8_lossy(text);
        let denied = text.contains(r#"("allowSubstitutes","")"#);
        assert_eq!(derivation::allows_substitutes(&parsed), !denied, "{path}");
        never += usize::from(denied);
        let urls = derivation::fetched_urls(&parsed);
        let has_some = [r#"("url",""#, r#"("urls",""#].iter().any(|name| text.contains(name));
        assert_eq!(!urls.is_empty(), has_some, "{path}");
        for url in &urls {
            assert!(url.contains("://") && text.contains(url), "{path}: {url}");
        }
        fetched += usize::from(parsed.is_fixed_output().unwrap_or(false) && has_some);
    }
    assert!(fetched > 200 && never > 50, "{fetched} fetched, {never} never substituted");
}

/// Both ways to check a derivation.
struct Both<'a> {
    texts: &'a BTreeMap<StorePath, Vec<u8>>,
    by_parser: OutputPaths,
    by_text: OutputPaths,
}

impl Both<'_> {
    /// Checks a text both ways, which have to say the same: what is wrong with it, if anything.
    fn check(&mut self, path: &StorePath, text: &[u8]) -> Option<String> {
        let store_dir = StoreDir::default();
        let mut lookup = |input: &StorePath| {
            self.texts.get(input).cloned().ok_or_else(|| "it is not in the set".to_owned())
        };
        let before = self.by_parser.known(path);
        let parsed = derivation::parse(&store_dir, path, text);
        let by_parser = parsed.and_then(|parsed| {
            self.by_parser.check(path, &parsed, &mut lookup)?;
            let outputs = derivation::outputs(&parsed)?.into_iter();
            Ok(outputs.filter_map(|(name, path)| Some((name, path?))).collect::<Vec<_>>())
        });
        let by_parser = by_parser.map_err(|error| error.to_string());
        let by_text = self.by_text.check_text(&store_dir, path, text, &mut lookup);
        let by_text = by_text.map_err(|error| error.to_string());
        assert_eq!(by_text, by_parser, "{}", String::from_utf8_lossy(text));
        assert_eq!(self.by_text.known(path), self.by_parser.known(path), "{path}");
        if let Some(before) = before {
            self.by_parser.know(path, before);
            self.by_text.know(path, before);
        }
        by_parser.err()
    }
}

#[test]
fn the_check_of_a_text_and_that_of_what_is_parsed_say_the_same_whatever_is_changed() {
    let Some(texts) = by_path() else { return };
    let known = OutputPaths::default();
    let mut both = Both { texts: &texts, by_parser: known.clone(), by_text: known };
    for (path, text) in &texts {
        assert_eq!(both.check(path, text), None);
    }
    let odd = [b'\\', b'"', b'\n', b'\t', b'x', b'0', 0xff, b']', b','];
    let (mut taken, mut mended, mut refused) = (0, 0, 0);
    for (number, (path, text)) in texts.iter().enumerate().step_by(3) {
        for change in 0..4 {
            let place = (number * 7919 + change * 104_729) % text.len();
            let byte = odd.get((number + change) % odd.len()).copied().expect("one of them");
            let mut changed = text.clone();
            match change % 4 {
                0 => drop(changed.remove(place)),
                1 => changed.insert(place, byte),
                2 => *changed.get_mut(place).expect("a byte") = byte,
                _ => {
                    let again = text.get(place..(place + change).min(text.len()));
                    changed.splice(place..place, again.expect("some bytes").to_vec());
                }
            }
            let mut wrong = both.check(path, &changed);
            taken += usize::from(wrong.is_none());
            // With the output paths that follow from the change, most are right again.
            for _ in 0..8 {
                let message = wrong.clone().unwrap_or_default();
                let paths = message.split_once(" has path ").and_then(|(_, paths)| {
                    paths.split_once(", expected ").map(|(a, b)| (a.to_owned(), b.to_owned()))
                });
                let Some((stated, expected)) = paths else { break };
                let Ok(whole) = String::from_utf8(changed.clone()) else { break };
                changed = whole.replace(&stated, &expected).into_bytes();
                wrong = both.check(path, &changed);
                mended += usize::from(wrong.is_none());
            }
            refused += usize::from(wrong.is_some());
        }
    }
    let counts = format!("{taken} taken, {mended} mended, {refused} refused");
    assert!(taken > 100 && mended > 100 && refused > 100, "{counts}");
}

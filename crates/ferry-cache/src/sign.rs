//! Signing what is in a cache: only the narinfos change.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ferry_formats::keys::SecretKey;
use ferry_formats::{StorePath, narinfo};
use ferry_store::closure::closure;
use ferry_store::parallel::in_parallel;
use ferry_store::progress::Progress;
use ferry_store::{Error, Result};

use crate::directory::Staging;
use crate::place::Listed;
use crate::walk::{Found, narinfo_files};
use crate::{BinaryCache, CacheError, sweep};

/// After how many narinfos those that were changed are brought to the disk.
const BATCH: usize = 1000;

/// What to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToSign {
    /// All that is in the cache (which has to be one that can be listed).
    Everything,
    /// These.
    Paths(Vec<StorePath>),
    /// These, and all that they refer to.
    Closure(Vec<StorePath>),
}

/// Which signatures come, and which go.
pub struct SignOptions {
    /// Each of these keys signs.
    pub keys: Vec<SecretKey>,
    /// What the keys of these names have signed is removed first.
    pub remove: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignReport {
    /// Narinfos looked at.
    pub paths: u64,
    /// Narinfos that were written again.
    pub changed: u64,
    /// Signatures that came.
    pub added: u64,
    /// Signatures that went.
    pub removed: u64,
    /// Files that cannot be signed, and why not.
    pub failed: Vec<(String, String)>,
}

impl SignReport {
    fn count(&mut self, signatures: Signatures) {
        self.changed += 1;
        self.added += signatures.added;
        self.removed += signatures.removed;
    }
}

impl BinaryCache {
    /// Signs paths of the cache. A narinfo is replaced by a whole one at once, and one that has
    /// all it should have is left alone. What a key vouches for is what the narinfo says:
    /// [verify](Self::verify) what is in the cache first, where that is not certain.
    ///
    /// # Errors
    /// When a path that is named is not there, when a cache that is to be signed as a whole cannot
    /// be listed, or when it cannot be written to.
    pub fn sign(
        &self,
        what: &ToSign,
        options: &SignOptions,
        progress: &dyn Progress,
    ) -> Result<SignReport> {
        self.check()?;
        let file = |path| Listed { name: narinfo::file_name(path), size: 0, modified: None };
        let files: Vec<Listed> = match what {
            ToSign::Everything => narinfo_files(&self.place)?,
            ToSign::Paths(paths) => paths.iter().map(file).collect(),
            ToSign::Closure(roots) => closure(self, roots)?.keys().map(file).collect(),
        };
        let staging = Staging::beside(&self.place, &self.scratch)?;
        let mut report = SignReport::default();
        let size = files.iter().map(|file| file.size).sum();
        progress.begin("signing", files.len() as u64, size);
        let outcome = files
            .chunks(BATCH)
            .try_for_each(|files| self.sign_some(files, options, &staging, &mut report, progress));
        progress.end();
        outcome?;
        report.failed.sort();
        if let ToSign::Paths(paths) = what
            && report.paths < files.len() as u64
        {
            let mut absent = paths.iter().zip(self.narinfos(paths)?);
            if let Some((path, _)) = absent.find(|(_, narinfo)| narinfo.is_none()) {
                return Err(Error::NotValid {
                    path: self.store_dir.render_path(path),
                    store: ferry_store::Store::describe(self),
                });
            }
        }
        Ok(report)
    }

    fn sign_some(
        &self,
        files: &[Listed],
        options: &SignOptions,
        staging: &Staging,
        report: &mut SignReport,
        progress: &dyn Progress,
    ) -> std::result::Result<(), CacheError> {
        let is_remote = self.place.is_remote();
        let mut changed: Vec<Changed> = Vec::new();
        self.for_each_narinfo(
            files,
            |file, found| {
                progress.bytes(file.size);
                let found = match found {
                    Ok(found) => found,
                    Err(error @ (CacheError::BadNarinfo { .. } | CacheError::OtherPath { .. })) => {
                        return Ok(Outcome::Failed(file.name.clone(), error.to_string()));
                    }
                    Err(error) => return Err(error),
                };
                progress.path(&found.narinfo.info.path);
                Ok(match self.changed(&file.name, found, options, staging)? {
                    None => Outcome::Same,
                    // It was read this moment, and there is nothing to be flushed.
                    Some(one) if is_remote => {
                        self.place.put(&one.file, &one.name)?;
                        Outcome::Put(one.signatures)
                    }
                    Some(one) => Outcome::ToPut(one),
                })
            },
            |outcome| {
                report.paths += 1;
                match outcome {
                    Outcome::Same => {}
                    Outcome::Put(signatures) => report.count(signatures),
                    Outcome::ToPut(one) => changed.push(one),
                    Outcome::Failed(file, reason) => report.failed.push((file, reason)),
                }
                Ok(())
            },
        )?;
        if changed.is_empty() {
            return Ok(());
        }
        staging.flush()?;
        // A sweep in between would see its narinfo come back without what that refers to.
        let _quiet = sweep::quiet(&self.place)?;
        let done = in_parallel(&changed, self.place.puts_at_a_time(), |one| {
            self.replace(one, options, staging)
        })?;
        done.into_iter().flatten().for_each(|signatures| report.count(signatures));
        Ok(())
    }

    /// Makes a narinfo with other signatures, if it should have others.
    fn changed(
        &self,
        name: &str,
        found: Found,
        options: &SignOptions,
        staging: &Staging,
    ) -> std::result::Result<Option<Changed>, CacheError> {
        let info = &found.narinfo.info;
        let fingerprint = info.fingerprint(&self.store_dir);
        let sign = |key: &SecretKey| key.sign(fingerprint.as_bytes()).to_nix_string();
        let keys = options.keys.iter().map(sign).collect();
        let before = String::from_utf8_lossy(&found.text).into_owned();
        let Some((after, signatures)) = with_signatures(&before, keys, &options.remove) else {
            return Ok(None);
        };
        let file = staging.new_file();
        fs::write(&file, after).map_err(CacheError::io("write", file.display()))?;
        Ok(Some(Changed { name: name.to_owned(), before, file, signatures }))
    }

    /// Puts a narinfo into the place of what it was made from. Another may have signed that, or
    /// have removed it, in the meantime.
    fn replace(
        &self,
        one: &Changed,
        options: &SignOptions,
        staging: &Staging,
    ) -> std::result::Result<Option<Signatures>, CacheError> {
        let Some(now) = self.place.get(&one.name)? else { return Ok(None) };
        if now == one.before.as_bytes() {
            self.place.put(&one.file, &one.name)?;
            return Ok(Some(one.signatures));
        }
        let found = self.found(&one.name, now)?;
        let Some(again) = self.changed(&one.name, found, options, staging)? else {
            return Ok(None);
        };
        self.place.put(&again.file, &again.name)?;
        Ok(Some(again.signatures))
    }
}

/// What came of a narinfo.
enum Outcome {
    /// It has all it should have.
    Same,
    /// It was replaced.
    Put(Signatures),
    /// It is to be replaced, once that is on the disk.
    ToPut(Changed),
    /// This file cannot be signed, and why.
    Failed(String, String),
}

/// A narinfo that is to be put into the place of another.
struct Changed {
    name: String,
    before: String,
    file: PathBuf,
    signatures: Signatures,
}

/// How many came and went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signatures {
    added: u64,
    removed: u64,
}

/// A narinfo with more signatures, and without those by the keys to be removed; nothing where that
/// is what it has. All else stays as it is, also what is not understood here.
fn with_signatures(
    text: &str,
    mut add: BTreeSet<String>,
    remove: &[String],
) -> Option<(String, Signatures)> {
    let signature = |line: &str| line.strip_prefix("Sig:").map(|value| value.trim().to_owned());
    let before: BTreeSet<String> = text.lines().filter_map(signature).collect();
    let stays = |signature: &&String| {
        let name = signature.split(':').next().unwrap_or_default();
        add.contains(*signature) || !remove.iter().any(|removed| removed == name)
    };
    let kept: BTreeSet<String> = before.iter().filter(stays).cloned().collect();
    let signatures = Signatures {
        added: add.difference(&before).count() as u64,
        removed: before.difference(&kept).count() as u64,
    };
    if signatures == (Signatures { added: 0, removed: 0 }) {
        return None;
    }
    add.extend(kept);
    // Where Nix writes them: in order, before the content address.
    let mut after = String::with_capacity(text.len() + add.len() * 128);
    let mut signature_lines =
        Some(add.iter().map(|signature| format!("Sig: {signature}\n")).collect::<String>());
    let others = text.lines().filter(|line| signature(line).is_none());
    let before_others = text.lines().position(|line| signature(line).is_some());
    for (number, line) in others.enumerate() {
        if before_others.map_or(line.starts_with("CA:"), |position| position == number) {
            after.extend(signature_lines.take());
        }
        after.push_str(line);
        after.push('\n');
    }
    after.extend(signature_lines);
    Some((after, signatures))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(signatures: &[&str]) -> BTreeSet<String> {
        signatures.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn signatures_come_and_go_and_all_else_stays() {
        let text = "StorePath: x\nSig: b:2\nSig: a:1\nCA: y\nNew: z\n";
        let (after, done) = with_signatures(text, set(&["c:3", "a:1"]), &[]).unwrap();
        assert_eq!(after, "StorePath: x\nSig: a:1\nSig: b:2\nSig: c:3\nCA: y\nNew: z\n");
        assert_eq!((done.added, done.removed), (1, 0));
        assert_eq!(with_signatures(text, set(&["a:1"]), &[]), None);

        let remove = ["a".to_owned(), "nobody".to_owned()];
        let (after, done) = with_signatures(text, set(&["a:9"]), &remove).unwrap();
        assert_eq!(after, "StorePath: x\nSig: a:9\nSig: b:2\nCA: y\nNew: z\n");
        assert_eq!((done.added, done.removed), (1, 1));
        // What it made just now is not what is to be removed.
        assert_eq!(with_signatures(text, set(&["a:1"]), &remove), None);

        let (after, _) = with_signatures("StorePath: x\nCA: y", set(&["a:1"]), &[]).unwrap();
        assert_eq!(after, "StorePath: x\nSig: a:1\nCA: y\n");
        let (after, _) = with_signatures("StorePath: x", set(&["a:1"]), &[]).unwrap();
        assert_eq!(after, "StorePath: x\nSig: a:1\n");
        let (after, _) =
            with_signatures("Sig: nonsense\nX: y\n", set(&[]), &["nonsense".to_owned()]).unwrap();
        assert_eq!(after, "X: y\n");
    }

    proptest! {
        #[test]
        fn once_is_enough_and_nothing_else_changes(
            lines in proptest::collection::vec("(Sig: [a-c]:[0-3]|CA: x|URL: y|New: [a-z]{0,3})", 0..12),
            add in proptest::collection::btree_set("[a-c]:[0-3]", 0..3),
            remove in proptest::collection::vec("[a-c]", 0..2),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            if let Some((after, _)) = with_signatures(&text, add.clone(), &remove) {
                let others = |text: &str| text.lines().filter(|line| !line.starts_with("Sig: ")).map(str::to_owned).collect::<Vec<_>>();
                prop_assert_eq!(others(&after), others(&text));
                for one in &add {
                    let line = format!("Sig: {one}");
                    prop_assert!(after.lines().any(|found| found == line));
                }
                prop_assert_eq!(with_signatures(&after, add, &remove), None);
            }
        }
    }
}

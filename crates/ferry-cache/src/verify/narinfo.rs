//! What can be told of a narinfo without reading its NAR.

use std::io::BufReader;

use ferry_formats::content_address;
use ferry_formats::keys::parse_signature;
use ferry_formats::narinfo::{self, Narinfo};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::message::harmless;
use ferry_store::trust::TrustPolicy;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::names::Names;
use super::{Fault, FaultKind};
use crate::compression::Compression;
use crate::place::MAX_SIZE;
use crate::walk::Found;
use crate::{BinaryCache, CacheError};

/// A narinfo that was looked at.
pub(super) struct Looked {
    /// Its file.
    pub(super) name: String,
    /// The path that it is about, and what it says, if it is a narinfo.
    pub(super) narinfo: Option<Narinfo>,
    pub(super) faults: Vec<Fault>,
    /// Whether a trusted key has signed it.
    pub(super) is_signed: bool,
    /// Whether there is a NAR that could be read.
    pub(super) has_nar: bool,
}

/// What all narinfos are held against.
pub(super) struct Look<'a> {
    pub(super) cache: &'a BinaryCache,
    pub(super) names: &'a Names,
    pub(super) trust: &'a TrustPolicy,
}

impl Look<'_> {
    /// Looks at one.
    pub(super) fn at(
        &self,
        name: &str,
        found: Result<Found, CacheError>,
    ) -> Result<Looked, CacheError> {
        let mut looked = Looked {
            name: name.to_owned(),
            narinfo: None,
            faults: Vec::new(),
            is_signed: false,
            has_nar: false,
        };
        let Found { text, narinfo } = match found {
            Ok(found) => found,
            Err(error) => {
                let is_large = self.names.file(name).is_some_and(|(size, _)| size > MAX_SIZE);
                looked.faults.push(unreadable(name, is_large, error)?);
                return Ok(looked);
            }
        };
        let path = &narinfo.info.path;
        let mut found = |kind, file: &str, message: String| {
            let path = Some(path.clone());
            looked.faults.push(Fault { kind, file: harmless(file), path, message, size: None });
        };
        looked.has_nar = self.nar(&narinfo, &mut found)?;
        self.claims(name, &narinfo.info, &mut found);
        for reference in narinfo.info.other_references() {
            if !self.names.has_narinfo(self.cache, reference)? {
                let reference = self.cache.store_dir.render_path(reference);
                found(FaultKind::MissingReference, name, format!("it refers to {reference}"));
            }
        }
        looked.is_signed = self.signatures(name, &text, &narinfo.info, &mut found);
        self.listing(path, &mut found)?;
        looked.narinfo = Some(narinfo);
        Ok(looked)
    }

    /// Whether a NAR is there, and of the right size.
    fn nar(
        &self,
        narinfo: &Narinfo,
        found: &mut impl FnMut(FaultKind, &str, String),
    ) -> Result<bool, CacheError> {
        let name = narinfo::file_name(&narinfo.info.path);
        if let Err(reason) = self.cache.place.check_url(&narinfo.url) {
            found(FaultKind::BadUrl, &name, format!("`{}`: {reason}", harmless(&narinfo.url)));
            return Ok(false);
        }
        let method = narinfo.compression.as_str();
        let is_known = Compression::parse(method).is_some();
        if !is_known {
            found(FaultKind::UnknownCompression, &name, format!("`{}`", harmless(method)));
        }
        let Some(size) = self.names.nar(self.cache, &narinfo.url)? else {
            found(FaultKind::NoNar, &narinfo.url, format!("{name} names it, and it is not there"));
            return Ok(false);
        };
        let expected = narinfo.file_size.filter(|expected| *expected > 0);
        if let (Some(size), Some(expected)) = (size, expected)
            && size != expected
        {
            let message = format!("it has {size} bytes, and should have {expected}");
            found(FaultKind::WrongFileSize, &narinfo.url, message);
        }
        Ok(is_known)
    }

    /// What a narinfo says that cannot be so.
    fn claims(&self, name: &str, info: &PathInfo, found: &mut impl FnMut(FaultKind, &str, String)) {
        let store_dir = &self.cache.store_dir;
        if let Some(deriver) = info.deriver.as_ref().filter(|deriver| !deriver.is_derivation()) {
            let message = format!("{} is no derivation", store_dir.render_path(deriver));
            found(FaultKind::BadDeriver, name, message);
        }
        if let Some(ca) = &info.ca
            && !info.is_content_addressed(store_dir)
        {
            found(FaultKind::WrongContentAddress, name, format!("{ca} does not give its path"));
        }
    }

    /// Whether a trusted key has signed it. That of a path that proves itself is not asked for.
    fn signatures(
        &self,
        name: &str,
        text: &[u8],
        info: &PathInfo,
        found: &mut impl FnMut(FaultKind, &str, String),
    ) -> bool {
        for text in signature_lines(&String::from_utf8_lossy(text)) {
            if let Err(error) = parse_signature(text) {
                found(FaultKind::MalformedSignature, name, error.to_string());
            }
        }
        let store_dir = &self.cache.store_dir;
        let fingerprint = info.fingerprint(store_dir);
        let keys = &self.trust.trusted_public_keys;
        let mut is_signed = false;
        let mut is_bad = false;
        for signature in &info.signatures {
            // There may be several keys of a name.
            if signature.verify(fingerprint.as_bytes(), keys).unwrap_or(false) {
                is_signed = true;
            } else if keys.iter().any(|key| key.name == signature.key_name) {
                is_bad = true;
                let key = harmless(&signature.key_name);
                let message = format!("the key `{key}` that is trusted has not made its signature");
                found(FaultKind::BadSignature, name, message);
            }
        }
        let proves_itself = info.ca.as_ref().is_some_and(content_address::can_be_proved)
            && info.is_content_addressed(store_dir);
        // One fault is told once.
        if self.trust.require_signatures && !is_signed && !is_bad && !proves_itself {
            let names: Vec<String> =
                info.signatures.iter().map(|signature| harmless(&signature.key_name)).collect();
            match names.as_slice() {
                [] => found(FaultKind::Unsigned, name, "nobody has signed it".to_owned()),
                names => found(
                    FaultKind::Untrusted,
                    name,
                    format!("it is signed by {}, and not by a trusted key", names.join(", ")),
                ),
            }
        }
        is_signed
    }

    /// Whether its listing is one, if it has one and the cache is one that can be listed.
    fn listing(
        &self,
        path: &StorePath,
        found: &mut impl FnMut(FaultKind, &str, String),
    ) -> Result<(), CacheError> {
        #[derive(Deserialize)]
        struct Listing {
            version: u32,
            #[serde(rename = "root")]
            _root: IgnoredAny,
        }
        let name = listing_name(path);
        if !self.names.lists(&name) {
            return Ok(());
        }
        let Some(file) = self.cache.place.open(&name, None)? else { return Ok(()) };
        // Read in pieces, however long it is.
        match serde_json::from_reader(BufReader::new(file)) {
            Ok(Listing { version: 1, .. }) => {}
            Ok(Listing { version, .. }) => {
                let message = format!("its version is {version}, and 1 is known");
                found(FaultKind::BadListing, &name, message);
            }
            Err(error) => found(FaultKind::BadListing, &name, harmless(&error.to_string())),
        }
        Ok(())
    }
}

/// The file that lists what is in the NAR of a path.
pub(super) fn listing_name(path: &StorePath) -> String {
    narinfo::file_name(path).replace(".narinfo", ".ls")
}

/// The values of the lines `Sig: …`.
pub(crate) fn signature_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("Sig:")).map(str::trim_start)
}

/// A narinfo that cannot be made sense of. What a server says about itself ends everything.
fn unreadable(name: &str, is_large: bool, error: CacheError) -> Result<Fault, CacheError> {
    let (kind, message) = match error {
        CacheError::BadNarinfo { reason, beginning, .. } => {
            let begins = ferry_store::message::Begins(&beginning);
            (FaultKind::BadNarinfo, format!("{reason}{begins}"))
        }
        CacheError::OtherPath { found, .. } => {
            (FaultKind::OtherPath, format!("it is about {found}"))
        }
        CacheError::Io { source, .. } if is_large => (FaultKind::BadNarinfo, source.to_string()),
        CacheError::Io { source, .. } => (FaultKind::Unreadable, source.to_string()),
        error => return Err(error),
    };
    Ok(Fault { kind, file: harmless(name), path: None, message, size: None })
}

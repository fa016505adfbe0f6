//! A bundle as a store to copy from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ferry_formats::keys::{PublicKey, Signature};
use ferry_formats::{PathInfo, StoreDir, StorePath, derivation};
use ferry_store::{Error, NarVisitor, Store};

use crate::head::{self, Head};
use crate::payload::{Input, Payload};
use crate::{BundleError, HeadDigest, Manifest, Result};

type Stream = BufReader<Box<dyn Read + Send>>;

/// An open bundle whose head was read and found whole.
pub struct Bundle {
    name: String,
    head: Head,
    numbers: HashMap<StorePath, usize>,
    /// The stream behind the head, until it is read.
    payload: Mutex<Option<Input<Stream>>>,
    /// Where to open it again, if it is a file.
    file: Option<PathBuf>,
}

impl Bundle {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, is not a bundle, or its head is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(open_file(path)?, path.display().to_string(), Some(path.to_owned()))
    }

    /// Reads a bundle from a stream, which can be read once; `name` is what to call it.
    ///
    /// # Errors
    /// As for [`Bundle::open`].
    pub fn from_stream(stream: impl Read + Send + 'static, name: &str) -> Result<Self> {
        Self::read(Box::new(stream), name.to_owned(), None)
    }

    fn read(stream: Box<dyn Read + Send>, name: String, file: Option<PathBuf>) -> Result<Self> {
        let mut input = Input::new(BufReader::with_capacity(256 << 10, stream), name.clone());
        let head = head::read(&mut input)?;
        let numbers =
            head.infos.iter().zip(0..).map(|(info, number)| (info.path.clone(), number)).collect();
        Ok(Self { name, head, numbers, payload: Mutex::new(Some(input)), file })
    }

    /// What the bundle says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.head.manifest
    }

    /// Everything in it, references before their referrers.
    #[must_use]
    pub fn path_infos(&self) -> &[PathInfo] {
        &self.head.infos
    }

    /// The digest that its signatures sign.
    #[must_use]
    pub fn head_digest(&self) -> HeadDigest {
        self.head.digest
    }

    /// The signatures of the bundle as a whole.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.head.signatures
    }

    /// Makes sure that one of `keys` has signed the bundle.
    ///
    /// # Errors
    /// [`BundleError::NotSigned`].
    pub fn require_signature(&self, keys: &[PublicKey]) -> Result<()> {
        if self.head.digest.is_signed_by_any(&self.head.signatures, keys) {
            return Ok(());
        }
        let signed_by =
            self.head.signatures.iter().map(|signature| signature.key_name.clone()).collect();
        Err(BundleError::NotSigned { bundle: self.name.clone(), signed_by })
    }

    /// The stream behind the head: the one that is open, or the file opened anew.
    fn take_payload(&self) -> Result<Input<Stream>> {
        let open = self.payload.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            return Ok(open);
        }
        let Some(file) = &self.file else {
            return Err(BundleError::StreamUsedUp { bundle: self.name.clone() });
        };
        let again = Self::read(open_file(file)?, self.name.clone(), None)?;
        if again.head.digest != self.head.digest {
            return Err(BundleError::Damaged {
                bundle: self.name.clone(),
                offset: 0,
                reason: "another bundle has taken its place meanwhile".to_owned(),
            });
        }
        again.take_payload()
    }

    fn wanted_ranges(&self, wanted: &HashMap<&StorePath, &PathInfo>) -> Vec<std::ops::Range<u64>> {
        let mut position = 0;
        let mut ranges = Vec::new();
        for info in &self.head.infos {
            let end = position + info.nar_size;
            if wanted.contains_key(&info.path) {
                ranges.push(position..end);
            }
            position = end;
        }
        ranges
    }
}

fn open_file(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = File::open(path).map_err(BundleError::io(format!("open {}", path.display())))?;
    Ok(Box::new(file))
}

impl Store for Bundle {
    fn store_dir(&self) -> &StoreDir {
        &self.head.store_dir
    }

    fn describe(&self) -> String {
        format!("bundle {}", self.name)
    }

    fn path_info(&self, path: &StorePath) -> ferry_store::Result<Option<PathInfo>> {
        Ok(self.numbers.get(path).and_then(|number| self.head.infos.get(*number)).cloned())
    }

    fn derivers(&self, path: &StorePath) -> ferry_store::Result<Vec<StorePath>> {
        let mut found = Vec::new();
        let derivations: Vec<PathInfo> =
            self.head.infos.iter().filter(|info| info.path.is_derivation()).cloned().collect();
        self.read_nars(&derivations, &mut |info, nar| {
            let text = ferry_store::admission::read_single_file(self.store_dir(), info, nar)?;
            let parsed = derivation::parse(self.store_dir(), &info.path, &text)?;
            if derivation::outputs(&parsed)?.iter().any(|(_, output)| output.as_ref() == Some(path))
            {
                found.push(info.path.clone());
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn read_nars(
        &self,
        wanted: &[PathInfo],
        visit: &mut NarVisitor<'_>,
    ) -> ferry_store::Result<()> {
        for info in wanted {
            self.require(&info.path)?;
        }
        let wanted: HashMap<&StorePath, &PathInfo> =
            wanted.iter().map(|info| (&info.path, info)).collect();
        let ranges = self.wanted_ranges(&wanted);
        let mut payload = Payload::start(self.take_payload()?, self.head.manifest.nar_size, ranges);
        for info in &self.head.infos {
            let Some(wanted) = wanted.get(&info.path) else {
                payload.skip(info.nar_size)?;
                continue;
            };
            let mut nar = (&mut payload).take(info.nar_size);
            visit(wanted, &mut nar)?;
            let unread = nar.limit();
            payload.skip(unread)?;
        }
        payload.finish().map_err(Error::from)
    }
}

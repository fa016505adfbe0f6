//! Where a binary cache is, and getting what is in it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ferry_store::http::{HttpClient, HttpError, HttpOptions, without_password};

use crate::address::Location;
use crate::bucket::Bucket;
use crate::directory;
use crate::error::CacheError;
use crate::layout::FileKind;

/// The file that makes a directory a binary cache.
pub(crate) const CACHE_INFO: &str = "nix-cache-info";

/// No file is larger, in bytes, that is neither a NAR nor a listing of one.
pub(crate) const MAX_SIZE: u64 = ferry_formats::narinfo::MAX_NARINFO_SIZE as u64;

/// How many NARs are fetched from the web at a time: each has a decoder, which takes memory.
const NARS_AT_A_TIME: usize = 12;

/// How many files are put to the web at a time.
const PUTS_AT_A_TIME: usize = 12;

/// A file in a cache.
pub(crate) struct Listed {
    /// Its name, relative to the cache: `nar/….nar.xz`.
    pub(crate) name: String,
    /// In bytes.
    pub(crate) size: u64,
    /// When it was last written, as far as that is known.
    pub(crate) modified: Option<SystemTime>,
}

/// Where a binary cache is.
pub(crate) enum Place {
    Directory(PathBuf),
    Web {
        /// Without a slash at the end.
        url: String,
        client: Box<HttpClient>,
    },
    Bucket(Box<Bucket>),
}

impl Place {
    pub(crate) fn new(location: &Location, options: &HttpOptions) -> Result<Self, CacheError> {
        Ok(match location {
            Location::Directory(directory) => Self::Directory(directory.clone()),
            Location::Web(url) => {
                Self::Web { url: url.clone(), client: Box::new(HttpClient::new(options)?) }
            }
            Location::Bucket(address) => Self::Bucket(Box::new(Bucket::new(address, options)?)),
        })
    }

    /// Its address as it may be shown.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Directory(directory) => directory.display().to_string(),
            Self::Web { url, .. } => without_password(url),
            Self::Bucket(bucket) => bucket.shown().to_owned(),
        }
    }

    /// The address of a file in it, as it may be shown.
    pub(crate) fn shown_file(&self, name: &str) -> String {
        match self {
            Self::Bucket(bucket) => bucket.shown_file(name),
            _ => format!("{}/{name}", self.shown().trim_end_matches('/')),
        }
    }

    pub(crate) fn is_remote(&self) -> bool {
        !matches!(self, Self::Directory(_))
    }

    /// How many small files to get at a time.
    pub(crate) fn connections(&self) -> usize {
        match self {
            Self::Directory(_) => cores(),
            Self::Web { client, .. } => client.connections(),
            Self::Bucket(bucket) => bucket.connections(),
        }
    }

    /// How many NARs to read at a time.
    pub(crate) fn nars_at_a_time(&self) -> usize {
        match self {
            Self::Directory(_) => cores(),
            _ => self.connections().min(NARS_AT_A_TIME.max(cores())),
        }
    }

    /// Gets a file, if it is there.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, CacheError> {
        match self {
            Self::Directory(directory) => read(&directory.join(name)),
            Self::Web { url, client } => {
                present(client.get(&format!("{url}/{name}"), MAX_SIZE), name)
            }
            Self::Bucket(bucket) => bucket.get(name, MAX_SIZE),
        }
    }

    /// Opens the file at the URL of a narinfo, if it is there. One that is known to be small comes
    /// in one piece, which is tried again where something goes wrong in the middle of it.
    pub(crate) fn open(
        &self,
        relative: &str,
        size: Option<u64>,
    ) -> Result<Option<Box<dyn Read + Send>>, CacheError> {
        match self {
            Self::Directory(directory) => {
                let file = directory.join(relative);
                match File::open(&file) {
                    Ok(open) => Ok(Some(Box::new(open))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(CacheError::io("read", file.display())(error)),
                }
            }
            Self::Web { url, client } => {
                let url = match relative.starts_with("http://") || relative.starts_with("https://")
                {
                    true => relative.to_owned(),
                    false => format!("{url}/{relative}"),
                };
                let found: Result<Box<dyn Read + Send>, _> = match size {
                    Some(size) if size <= MAX_SIZE => client
                        .get(&url, size)
                        .map(|bytes| Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>),
                    _ => client.open(&url),
                };
                present(found, relative)
            }
            Self::Bucket(bucket) => match size {
                Some(size) if size <= MAX_SIZE => {
                    let found = bucket.get(relative, size)?;
                    Ok(found.map(|bytes| Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>))
                }
                _ => bucket.open(relative),
            },
        }
    }

    /// How many files to put at a time.
    pub(crate) fn puts_at_a_time(&self) -> usize {
        match self {
            Self::Directory(_) => 1,
            _ => self.connections().min(PUTS_AT_A_TIME),
        }
    }

    /// Whether there is a file of this name; in a directory or a bucket, of this size.
    pub(crate) fn has(&self, name: &str, size: u64) -> Result<bool, CacheError> {
        match self {
            Self::Directory(directory) => {
                let found = fs::metadata(directory.join(name));
                Ok(found.is_ok_and(|found| found.len() == size))
            }
            Self::Web { url, client } => Ok(client.exists(&format!("{url}/{name}"))?),
            Self::Bucket(bucket) => Ok(bucket.size(name)? == Some(size)),
        }
    }

    /// Whether there is a file of this name.
    pub(crate) fn contains(&self, name: &str) -> Result<bool, CacheError> {
        match self {
            Self::Directory(directory) => Ok(directory.join(name).exists()),
            Self::Web { .. } => self.has(name, 0),
            Self::Bucket(bucket) => Ok(bucket.size(name)?.is_some()),
        }
    }

    /// Gives a file its place, all at once. On a disk it has to be beside it, and goes there.
    pub(crate) fn put(&self, file: &Path, name: &str) -> Result<(), CacheError> {
        match self {
            Self::Directory(directory) => return directory::put(directory, file, name),
            Self::Web { url, client } => {
                client.put(&format!("{url}/{name}"), file, content_type(name))?;
            }
            Self::Bucket(bucket) => bucket.put(file, name, content_type(name))?,
        }
        // It goes away with the directory that it is in, if not now.
        let _ = fs::remove_file(file);
        Ok(())
    }

    /// Hands over every file of the cache whose name begins with `prefix` (`nar/`, or nothing), in
    /// no particular order. A web server cannot be asked for that.
    pub(crate) fn list(
        &self,
        prefix: &str,
        each: &mut dyn FnMut(Listed) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        match self {
            Self::Directory(directory) => directory::list(directory, prefix, true, each),
            Self::Web { .. } => Err(CacheError::NoListing { cache: self.shown() }),
            Self::Bucket(bucket) => bucket.list(prefix, None, each),
        }
    }

    /// The same of the files right in the cache, and of none in a directory below it.
    pub(crate) fn list_top(
        &self,
        each: &mut dyn FnMut(Listed) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        match self {
            Self::Directory(directory) => directory::list(directory, "", false, each),
            Self::Web { .. } => Err(CacheError::NoListing { cache: self.shown() }),
            Self::Bucket(bucket) => bucket.list("", Some("/"), each),
        }
    }

    /// Takes a file away, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), CacheError> {
        match self {
            Self::Directory(directory) => directory::remove(directory, name),
            Self::Web { .. } => Err(CacheError::NoListing { cache: self.shown() }),
            Self::Bucket(bucket) => bucket.remove(name),
        }
    }

    /// Refuses a URL of a narinfo that leads out of the cache. On the web Nix takes full addresses
    /// too, and so do we: whatever is there is checked by its hash.
    pub(crate) fn check_url(&self, url: &str) -> Result<(), &'static str> {
        let full = url.contains("://");
        if full && matches!(self, Self::Web { .. }) {
            return match url.starts_with("http://") || url.starts_with("https://") {
                true => Ok(()),
                false => Err("it is on no web server"),
            };
        }
        if full {
            return Err("it leads out of the cache");
        }
        if url.chars().any(char::is_control) || url.contains('\\') {
            return Err("no file is called like this");
        }
        // To a file system or a bucket a question mark is a character like any other.
        let path = match self {
            Self::Directory(_) | Self::Bucket(_) => url,
            Self::Web { .. } => url.split(['?', '#']).next().unwrap_or_default(),
        };
        let odd = |part: &str| {
            let part = part.to_ascii_lowercase().replace("%2e", ".");
            part.is_empty() || part == "." || part == ".." || part.contains("%2f")
        };
        if path.split('/').any(odd) {
            return Err("it leads out of the cache");
        }
        Ok(())
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What Nix says that a file is.
fn content_type(name: &str) -> &'static str {
    match name {
        CACHE_INFO => "text/x-nix-cache-info",
        name => match FileKind::of(name) {
            FileKind::Narinfo => "text/x-nix-narinfo",
            FileKind::Listing | FileKind::Realisation => "application/json",
            FileKind::Log => "text/plain; charset=utf-8",
            _ => "application/x-nix-nar",
        },
    }
}

fn present<T>(found: Result<T, HttpError>, name: &str) -> Result<Option<T>, CacheError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error, name) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an answer means that there is no such file. A bucket of S3 that nobody may list says
/// "forbidden" of what it does not have; who may not read its `nix-cache-info` may read nothing.
fn is_absent(error: &HttpError, name: &str) -> bool {
    match error.status() {
        Some(404 | 410) => true,
        Some(403) => name != CACHE_INFO,
        _ => false,
    }
}

/// Reads a small file, if it is there.
pub(crate) fn read(file: &Path) -> Result<Option<Vec<u8>>, CacheError> {
    let failed = |source| CacheError::io("read", file.display())(source);
    let open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // Room for all of nearly every narinfo: what grows as it is read is read in many pieces.
    let mut bytes = Vec::with_capacity(4096);
    open.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(failed(io::Error::other(format!("it is larger than {MAX_SIZE} bytes"))));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CacheAddress;

    fn place(address: &str) -> Result<Place, String> {
        let address = CacheAddress::parse(address).map_err(|error| error.to_string())?;
        Place::new(&address.location, &HttpOptions::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_cache_is_a_directory_or_on_the_web_or_in_a_bucket() {
        for (address, file) in [
            ("/srv/a?b%20", "/srv/a?b%20/x"),
            ("file:///srv/a%20b?compression=xz", "/srv/a b/x"),
            ("https://cache.example.org/?priority=10", "https://cache.example.org/x"),
            ("http://name:secret@host:81/a", "http://host:81/a/x"),
            ("s3://bucket/a%20b?endpoint=http://host:81", "http://host:81/bucket/a b/x"),
        ] {
            let place = place(address).unwrap();
            assert_eq!(place.shown_file("x"), file);
        }
    }

    #[test]
    fn any_other_address_is_refused_without_its_password() {
        for address in ["relative", "file://relative", "s3://name:secret@bucket", "s4://bucket", ""]
        {
            let error = place(address).err().unwrap();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn no_url_leads_out_of_a_cache() {
        let directory = place("/srv/cache").unwrap();
        let web = place("http://host/cache").unwrap();
        let bucket = place("s3://bucket/cache").unwrap();
        for good in ["nar/x.nar.xz", "x.nar?hash=y", "nar/..x", "a/b/c"] {
            assert_eq!(directory.check_url(good), Ok(()));
            assert_eq!(web.check_url(good), Ok(()));
            assert_eq!(bucket.check_url(good), Ok(()));
        }
        for bad in [
            "../x",
            "nar/../../x",
            "/etc/passwd",
            "nar//x",
            "./x",
            "..",
            "nar/%2e%2E/x",
            "a%2fb",
            "x\0y",
            "file:///etc/passwd",
            "nar\\..\\x",
            "",
        ] {
            assert!(directory.check_url(bad).is_err(), "{bad}");
            assert!(web.check_url(bad).is_err(), "{bad}");
            assert!(bucket.check_url(bad).is_err(), "{bad}");
        }
        assert!(directory.check_url("https://host/x").is_err());
        assert!(bucket.check_url("https://host/x").is_err());
        assert!(directory.check_url("x?/../../y").is_err());
        assert_eq!(web.check_url("https://elsewhere/x"), Ok(()));
    }
}

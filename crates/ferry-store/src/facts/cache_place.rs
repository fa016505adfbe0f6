//! Where a binary cache is, and getting one of its small files.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::cache::CacheError;
use crate::http::{HttpClient, HttpError, HttpOptions, without_password};

/// No file is larger, in bytes, that is neither a NAR nor a listing of one.
pub(super) const MAX_SIZE: u64 = ferry_formats::narinfo::MAX_NARINFO_SIZE as u64;

/// Where a binary cache is.
pub(super) enum Place {
    Directory(PathBuf),
    Web {
        /// Without a slash at the end.
        url: String,
        client: Box<HttpClient>,
    },
}

impl Place {
    /// Understands `file:///DIRECTORY`, `/DIRECTORY`, `http://…` and `https://…`. Parameters
    /// behind a question mark are settings of Nix's and say nothing about where it is.
    pub(super) fn parse(address: &str, options: &HttpOptions) -> Result<Self, CacheError> {
        let bad = |reason: &'static str| CacheError::BadAddress {
            address: without_password(address),
            reason,
        };
        if address.starts_with('/') {
            return Ok(Self::Directory(PathBuf::from(address)));
        }
        let plain = address.split('?').next().unwrap_or_default();
        if let Some(path) = plain.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(bad("the directory behind `file://` begins with a slash"));
            }
            let path: Vec<u8> = percent_decode_str(path).collect();
            return Ok(Self::Directory(PathBuf::from(OsString::from_vec(path))));
        }
        if !plain.starts_with("http://") && !plain.starts_with("https://") {
            return Err(bad("known are `https://…`, `http://…`, `file:///…` and directories"));
        }
        Ok(Self::Web {
            url: plain.trim_end_matches('/').to_owned(),
            client: Box::new(HttpClient::new(options)?),
        })
    }

    /// Its address as it may be shown.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Directory(directory) => directory.display().to_string(),
            Self::Web { url, .. } => without_password(url),
        }
    }

    /// The address of a file in it, as it may be shown.
    pub(super) fn shown_file(&self, name: &str) -> String {
        format!("{}/{name}", self.shown().trim_end_matches('/'))
    }

    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Web { .. })
    }

    /// How many files to get at a time.
    pub(super) fn connections(&self) -> usize {
        match self {
            Self::Directory(_) => 1,
            Self::Web { client, .. } => client.connections(),
        }
    }

    /// Gets a file, if it is there.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, CacheError> {
        match self {
            Self::Directory(directory) => read(&directory.join(name)),
            Self::Web { url, client } => {
                let found = client.get(&format!("{url}/{name}"), MAX_SIZE);
                match found {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if is_absent(&error, name) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// Whether an answer means that there is no such file. A bucket of S3 that nobody may list says
/// "forbidden" of what it does not have; who may not read its `nix-cache-info` may read nothing.
fn is_absent(error: &HttpError, name: &str) -> bool {
    match error.status() {
        Some(404 | 410) => true,
        Some(403) => name != super::cache::CACHE_INFO,
        _ => false,
    }
}

fn read(file: &Path) -> Result<Option<Vec<u8>>, CacheError> {
    let failed = |source| CacheError::Io { file: file.display().to_string(), source };
    let open = match File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    open.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(failed(io::Error::other(format!("it is larger than {MAX_SIZE} bytes"))));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Result<String, String> {
        match Place::parse(address, &HttpOptions::default()) {
            Ok(place) => Ok(place.shown_file("x")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_cache_is_a_directory_or_on_the_web() {
        for (address, file) in [
            ("/srv/a?b%20", "/srv/a?b%20/x"),
            ("file:///srv/a%20b?compression=xz", "/srv/a b/x"),
            ("https://cache.example.org/?priority=10", "https://cache.example.org/x"),
            ("http://name:secret@host:81/a", "http://host:81/a/x"),
        ] {
            assert_eq!(parse(address).as_deref(), Ok(file));
        }
    }

    #[test]
    fn any_other_address_is_refused_without_its_password() {
        for address in ["relative", "file://relative", "s3://name:secret@bucket", ""] {
            let error = parse(address).expect_err(address);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

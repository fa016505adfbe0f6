//! Addresses of binary caches, as Nix writes them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use ferry_store::http::without_password;
use percent_encoding::percent_decode_str;

use crate::bucket::BucketAddress;
use crate::compression::{Compression, CompressionSetting};
use crate::place::CACHE_INFO;
use crate::{CacheError, WriteSettings};

/// Where a binary cache is, and the settings in its address.
#[derive(Clone, Debug)]
pub struct CacheAddress {
    pub(crate) location: Location,
    /// How to write to it: the parameters `compression`, `compression-level`,
    /// `write-nar-listing`, `priority` and `want-mass-query`.
    pub settings: WriteSettings,
    /// Files with secret keys to sign with: the parameters `secret-key` and `secret-keys`.
    pub secret_key_files: Vec<PathBuf>,
}

/// Where it is.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    Directory(PathBuf),
    /// Without a slash at the end.
    Web(String),
    Bucket(Box<BucketAddress>),
}

/// Parameters that mean something to Nix and nothing here.
const PASSED_OVER: [&str; 6] = [
    "trusted",
    "local-nar-cache",
    "parallel-compression",
    "path-info-cache-size",
    "store",
    "system-features",
];

impl CacheAddress {
    /// Whether an address is that of a binary cache, whatever else is wrong with it.
    #[must_use]
    pub fn is_one(address: &str) -> bool {
        ["http://", "https://", "file://", "s3://"].iter().any(|scheme| address.starts_with(scheme))
    }

    /// Whether there is a binary cache in a directory.
    #[must_use]
    pub fn is_directory(directory: &Path) -> bool {
        directory.join(CACHE_INFO).is_file()
    }

    /// Understands `file:///DIRECTORY`, `/DIRECTORY`, `http://…`, `https://…` and
    /// `s3://BUCKET[/PREFIX]`, with Nix's parameters behind a question mark (which a plain
    /// directory has none of).
    ///
    /// # Errors
    /// [`CacheError::BadAddress`].
    pub fn parse(address: &str) -> Result<Self, CacheError> {
        let bad =
            |reason: String| CacheError::BadAddress { address: without_password(address), reason };
        let mut parsed = Self {
            location: Location::Directory(PathBuf::from(address)),
            settings: WriteSettings::default(),
            secret_key_files: Vec::new(),
        };
        if address.starts_with('/') {
            return Ok(parsed);
        }
        let (plain, parameters) = address.split_once('?').unwrap_or((address, ""));
        if let Some(path) = plain.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(bad("the directory behind `file://` begins with a slash".to_owned()));
            }
            let path: Vec<u8> = percent_decode_str(path).collect();
            parsed.location = Location::Directory(PathBuf::from(OsString::from_vec(path)));
        } else if plain.starts_with("http://") || plain.starts_with("https://") {
            parsed.location = Location::Web(plain.trim_end_matches('/').to_owned());
        } else if let Some(bucket) = plain.strip_prefix("s3://") {
            parsed.location =
                Location::Bucket(Box::new(BucketAddress::parse(bucket).map_err(bad)?));
        } else {
            let known = "known are `https://…`, `http://…`, `s3://…`, `file:///…` and directories";
            return Err(bad(known.to_owned()));
        }
        parsed.set(parameters).map_err(bad)?;
        if let Location::Bucket(bucket) = &parsed.location {
            bucket.url(None).map_err(bad)?;
        }
        Ok(parsed)
    }

    /// Where requests to it go, if it is not on a disk: for finding out through which proxy.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        match &self.location {
            Location::Directory(_) => None,
            Location::Web(url) => Some(url.clone()),
            Location::Bucket(bucket) => bucket.url(None).ok(),
        }
    }

    /// Whether it is a bucket of S3.
    #[must_use]
    pub fn is_bucket(&self) -> bool {
        matches!(self.location, Location::Bucket(_))
    }

    /// The profile that the credentials for a bucket are to be found under: the parameter
    /// `profile`.
    #[must_use]
    pub fn profile(&self) -> Option<&str> {
        match &self.location {
            Location::Bucket(bucket) => bucket.profile.as_deref(),
            _ => None,
        }
    }

    fn set(&mut self, parameters: &str) -> Result<(), String> {
        let parameters = parameters.replace('+', "%2B");
        let (mut method, mut level) = (Compression::Xz, None);
        for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
            let number = || -> Result<u32, String> {
                value.parse().map_err(|_| format!("`{name}={value}` is not a number"))
            };
            match name.as_ref() {
                "compression" => {
                    method = Compression::parse(&value)
                        .ok_or_else(|| format!("`{value}` is no compression that is known"))?;
                }
                "compression-level" if value == "-1" => level = None,
                "compression-level" => level = Some(number()?),
                "write-nar-listing" => self.settings.write_nar_listing = is_true(&name, &value)?,
                "priority" => self.settings.priority = Some(number()?),
                "want-mass-query" => {
                    self.settings.want_mass_query = Some(is_true(&name, &value)?);
                }
                "secret-key" => self.secret_key_files.push(PathBuf::from(value.as_ref())),
                "secret-keys" => {
                    let files = value.split(',').filter(|file| !file.is_empty());
                    self.secret_key_files.extend(files.map(PathBuf::from));
                }
                other if PASSED_OVER.contains(&other) => {}
                "index-debug-info" if !is_true(&name, &value)? => {}
                "index-debug-info" => {
                    return Err(format!("`{name}`: debugging information is not indexed"));
                }
                "narinfo-compression" | "ls-compression" | "log-compression" => {
                    return Err(format!("`{name}`: such files are written as they are"));
                }
                other => {
                    if let Location::Bucket(bucket) = &mut self.location
                        && bucket.set(other, &value)?
                    {
                        continue;
                    }
                    return Err(format!("the parameter `{other}` is not known"));
                }
            }
        }
        self.settings.compression = CompressionSetting::new(method, level)?;
        Ok(())
    }
}

fn is_true(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(format!("`{name}={value}` is neither `true` nor `false`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_nix() {
        let address = "file:///c?compression=zstd&compression-level=19&write-nar-listing=1\
                       &secret-key=/a+b&secret-keys=/c,/d&priority=10&want-mass-query=true\
                       &trusted=1";
        let parsed = CacheAddress::parse(address).unwrap();
        let expected = WriteSettings {
            compression: CompressionSetting::new(Compression::Zstd, Some(19)).unwrap(),
            write_nar_listing: true,
            priority: Some(10),
            want_mass_query: Some(true),
            ..WriteSettings::default()
        };
        assert_eq!(parsed.settings, expected);
        assert_eq!(parsed.secret_key_files, ["/a+b", "/c", "/d"].map(PathBuf::from));
        let usual = CacheAddress::parse("file:///c?compression-level=-1").unwrap();
        assert_eq!(usual.settings, WriteSettings::default());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (parameters, said) in [
            ("comression=xz", "`comression`"),
            ("compression=lzop", "`lzop`"),
            ("compression=br", "`br`"),
            ("compression-level=10", "0 to 9"),
            ("compression-level=high", "`compression-level=high`"),
            ("write-nar-listing=maybe", "`write-nar-listing=maybe`"),
            ("index-debug-info=true", "`index-debug-info`"),
        ] {
            let error = CacheAddress::parse(&format!("file:///c?{parameters}")).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}

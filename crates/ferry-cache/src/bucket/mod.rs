//! Binary caches in buckets of S3, through the crate `object_store`.
//!
//! What that does is asynchronous, and everything here is not: each request is waited for by the
//! thread that makes it, on a runtime that has nothing but a clock.

mod address;
mod credentials;
mod problem;
mod transport;
mod upload;

use std::future::Future;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry_store::http::{HttpError, HttpOptions, S3Credentials};
use ferry_store::message::{beginning, harmless};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path as Key;
use object_store::{
    Attribute, BackoffConfig, GetOptions, GetResult, ObjectStore as _, ObjectStoreExt as _,
    RetryConfig,
};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::CacheError;
use crate::compression::Compression;
use crate::directory::PREFIX as OWN;
use crate::place::{CACHE_INFO, Listed};

pub(crate) use address::BucketAddress;
use credentials::{NoCredentials, with_credentials};
use transport::{Long, Transport};
use upload::{PART, Slots};

/// A bucket, or what is below one name in it.
pub(crate) struct Bucket {
    store: AmazonS3,
    shown: String,
    /// The URL of the bucket, without a slash at the end.
    url: String,
    /// What stands in front of the names of all files.
    prefix: String,
    storage_class: Option<String>,
    /// Bytes to a part of a file, and how large a file may be that goes in one piece.
    part_size: u64,
    in_parts_above: u64,
    connections: usize,
    slots: Slots,
}

impl Bucket {
    /// Nothing is connected to yet, but where the machine itself may have keys.
    pub(crate) fn new(address: &BucketAddress, options: &HttpOptions) -> Result<Self, CacheError> {
        let bad = |reason: String| CacheError::BadAddress { address: address.shown(), reason };
        let region = options.s3.region.as_deref();
        let url = address.url(region).map_err(bad)?;
        let server = url.parse().map_err(|_| bad(format!("`{url}` is no URL")))?;
        let transport = Transport::new(options, &server)?;
        let near = transport.near.clone();
        // Requests are tried again by the transport. This is for an answer that breaks off in the
        // middle of a file, which goes on from there.
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: options.first_wait,
                max_backoff: options.longest_wait,
                base: 2.0,
            },
            max_retries: usize::try_from(options.retries).unwrap_or(usize::MAX),
            retry_timeout: Duration::from_secs(u64::from(u32::MAX)),
        };
        let builder = AmazonS3Builder::new()
            .with_bucket_name(address.bucket())
            .with_region(address.region_or(region))
            .with_endpoint(&url)
            // The URL is that of the bucket already.
            .with_virtual_hosted_style_request(true)
            // Over TLS nobody changes what is sent.
            .with_unsigned_payload(url.starts_with("https://"))
            // Not every server has the other way of deleting.
            .with_disable_bulk_delete(true)
            .with_http_connector(transport)
            .with_retry(retry);
        let build = |builder: AmazonS3Builder| {
            builder.build().map_err(|error| bad(harmless(&error.to_string())))
        };
        let credentials = &options.s3.credentials;
        let store = with_credentials(builder.clone(), credentials, &near).map_err(bad)?;
        let mut bucket = Self {
            store: build(store)?,
            shown: address.shown(),
            url,
            prefix: address.prefix().to_owned(),
            storage_class: address.storage_class.clone(),
            part_size: address.part_size.unwrap_or(PART),
            in_parts_above: address.in_parts_above.or(address.part_size).unwrap_or(PART),
            connections: options.connections.max(1),
            slots: Slots::new(),
        };
        if matches!(credentials, S3Credentials::Instance { .. }) && !bucket.has_role()? {
            bucket.store = build(builder.with_skip_signature(true))?;
        }
        Ok(bucket)
    }

    /// Whether the machine has a role, and so keys.
    fn has_role(&self) -> Result<bool, CacheError> {
        let asked = runtime()
            .map_err(|error| self.failed("", &error))?
            .block_on(self.store.credentials().get_credential());
        match asked {
            Ok(_) => Ok(true),
            Err(error) => match transport::credentials(&error) {
                Some(NoCredentials { status: Some(404), .. }) => Ok(false),
                _ => Err(self.understand("", &error)),
            },
        }
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The URL of a file, as it may be shown.
    pub(crate) fn shown_file(&self, name: &str) -> String {
        format!("{}/{}{name}", self.url, self.prefix)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    /// Gets a file of at most `limit` bytes, if it is there. One that is compressed on the way, as
    /// Nix does with its `narinfo-compression`, is decompressed.
    pub(crate) fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let key = self.key(name)?;
        let got = self.run(name, async {
            let found = self.store.get_opts(&key, GetOptions::default()).await?;
            let encoding = found.attributes.get(&Attribute::ContentEncoding).cloned();
            let mut stream = found.into_stream();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > limit {
                    break;
                }
            }
            Ok((bytes, encoding))
        });
        let Some((mut bytes, encoding)) = present(got, name)? else { return Ok(None) };
        let too_long = |bytes: &[u8]| HttpError::TooLong {
            url: self.shown_file(name),
            method: "GET",
            limit,
            beginning: beginning(bytes),
        };
        if let Some(method) = encoding.as_ref().and_then(|name| Compression::parse(name.as_ref()))
            && bytes.len() as u64 <= limit
        {
            let mut plain = Vec::new();
            let failed = |error: io::Error| self.failed(name, &error);
            let decoder = method.decoder(bytes.as_slice()).map_err(failed)?;
            decoder.take(limit.saturating_add(1)).read_to_end(&mut plain).map_err(failed)?;
            bytes = plain;
        }
        if bytes.len() as u64 > limit {
            return Err(too_long(&bytes).into());
        }
        Ok(Some(bytes))
    }

    /// Opens a file, if it is there, to be read as it comes. Where that breaks off it goes on, as
    /// often as a request is tried again.
    pub(crate) fn open(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, CacheError> {
        let key = self.key(name)?;
        let mut options = GetOptions::default();
        options.extensions.insert(Long);
        let opened = self.run(name, self.store.get_opts(&key, options));
        let Some(found) = present(opened.map(GetResult::into_stream), name)? else {
            return Ok(None);
        };
        let runtime = runtime().map_err(|error| self.failed(name, &error))?;
        Ok(Some(Box::new(Incoming { runtime, stream: found, piece: Bytes::new() })))
    }

    /// The size of a file, if it is there.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>, CacheError> {
        let key = self.key(name)?;
        let found = present(self.run(name, self.store.head(&key)), name)?;
        Ok(found.map(|found| found.size))
    }

    /// Takes a file away, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), CacheError> {
        let key = self.key(name)?;
        let removed = self.run(name, self.store.delete(&key));
        match removed {
            // What may not be done is an error, unlike what is not there.
            Err(error) if problem::is_absent(&error, true) => Ok(()),
            removed => removed,
        }
    }

    /// Hands over the files whose names begin with `prefix`; with a `delimiter`, only those with
    /// none of it behind that.
    pub(crate) fn list(
        &self,
        prefix: &str,
        delimiter: Option<&'static str>,
        each: &mut dyn FnMut(Listed) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        let below = format!("{}{prefix}", self.prefix);
        let mut page_token = None;
        loop {
            let options = PaginatedListOptions {
                delimiter: delimiter.map(Into::into),
                page_token: page_token.take(),
                ..PaginatedListOptions::default()
            };
            let below = Some(below.as_str()).filter(|below| !below.is_empty());
            let page = self.run("", self.store.list_paginated(below, options))?;
            for found in page.result.objects {
                let Some(name) = found.location.as_ref().strip_prefix(&self.prefix) else {
                    continue;
                };
                if name.starts_with(OWN) && !prefix.starts_with(OWN) {
                    continue;
                }
                let modified = Some(SystemTime::from(found.last_modified));
                each(Listed { name: name.to_owned(), size: found.size, modified })?;
            }
            match page.page_token {
                Some(token) => page_token = Some(token),
                None => return Ok(()),
            }
        }
    }

    /// The key of a file.
    fn key(&self, name: &str) -> Result<Key, CacheError> {
        let key = Key::parse(format!("{}{name}", self.prefix));
        key.map_err(|error| self.failed(name, &error))
    }

    /// Waits for a request about a file.
    fn run<T>(
        &self,
        name: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, CacheError> {
        let runtime = runtime().map_err(|error| self.failed(name, &error))?;
        runtime.block_on(request).map_err(|error| self.understand(name, &error))
    }

    /// What went wrong with a request about a file.
    fn understand(&self, name: &str, error: &object_store::Error) -> CacheError {
        if let Some(error) = transport::carried(error) {
            return problem::understand(error);
        }
        match transport::credentials(error) {
            Some(NoCredentials { reason, .. }) => {
                CacheError::NoCredentials { cache: self.shown.clone(), reason }
            }
            None => self.failed(name, error),
        }
    }

    fn failed(&self, name: &str, error: &dyn std::error::Error) -> CacheError {
        CacheError::Bucket { url: self.shown_file(name), reason: harmless(&error.to_string()) }
    }
}

/// A runtime for one thread: nothing but a clock, and made in no time.
fn runtime() -> io::Result<Runtime> {
    if Handle::try_current().is_ok() {
        let reason = "a bucket is waited for, which no thread of an asynchronous runtime may do";
        return Err(io::Error::other(reason));
    }
    Builder::new_current_thread().enable_time().build()
}

fn present<T>(found: Result<T, CacheError>, name: &str) -> Result<Option<T>, CacheError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if problem::is_absent(&error, name == CACHE_INFO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that is being read.
struct Incoming {
    runtime: Runtime,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    let carried = transport::carried(&error).map(problem::understand);
                    return Err(carried.map_or_else(|| io::Error::other(error), io::Error::other));
                }
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        let taken = self.piece.split_to(count);
        if let Some(buffer) = buffer.get_mut(..count) {
            buffer.copy_from_slice(&taken);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ferry_test_world::S3Server;

    use super::*;

    fn bucket(server: &S3Server, name: &str) -> Bucket {
        let mut address = BucketAddress::parse(name).unwrap();
        assert!(address.set("endpoint", &server.url()).unwrap());
        Bucket::new(&address, &HttpOptions::default()).unwrap()
    }

    /// The names of the files whose names begin with `prefix`, with their sizes.
    fn listed(bucket: &Bucket, prefix: &str) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let each = &mut |file: Listed| {
            assert!(file.modified.is_some_and(|modified| modified > SystemTime::UNIX_EPOCH));
            found.push((file.name, file.size));
            Ok(())
        };
        bucket.list(prefix, None, each).unwrap();
        found.sort();
        found
    }

    #[test]
    fn files_are_put_and_listed_and_taken_away_below_the_prefix_and_nowhere_else() {
        let Some(server) = S3Server::start() else { return };
        server.bucket("bucket");
        let (one, other) = (bucket(&server, "bucket/p"), bucket(&server, "bucket/pq"));
        let scratch = tempfile::tempdir_in("/tmp").unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "12345").unwrap();
        for name in ["x.narinfo", "nar/a", "nar/b", "narrow", ".ferry-pending/y"] {
            one.put(&file, name, "text/plain").unwrap();
        }
        other.put(&file, "z", "text/plain").unwrap();
        let named = |names: &[&str]| -> Vec<(String, u64)> {
            names.iter().map(|name| ((*name).to_owned(), 5)).collect()
        };
        assert_eq!(listed(&one, ""), named(&["nar/a", "nar/b", "narrow", "x.narinfo"]));
        assert_eq!(listed(&one, "nar/"), named(&["nar/a", "nar/b"]));
        assert_eq!(listed(&one, ".ferry-pending/"), named(&[".ferry-pending/y"]));
        assert_eq!(listed(&other, ""), named(&["z"]));

        assert_eq!(one.size("nar/a").unwrap(), Some(5));
        one.remove("nar/a").unwrap();
        assert!(one.size("nar/a").unwrap().is_none());
        assert_eq!(listed(&one, "nar/"), named(&["nar/b"]));
        one.remove("nar/a").unwrap();
        assert_eq!(one.get("nar/b", 5).unwrap().unwrap(), b"12345");
        assert!(matches!(one.get("nar/b", 4), Err(CacheError::Http(HttpError::TooLong { .. }))));
        assert_eq!(one.get("nar/a", 5).unwrap(), None);
    }

    #[test]
    fn a_small_file_that_is_stored_compressed_and_says_so_is_read_as_what_it_was() {
        use std::io::Write as _;
        let Some(server) = S3Server::start() else { return };
        server.bucket("bucket");
        let bucket = bucket(&server, "bucket");
        let text = b"StorePath: the text of a narinfo".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&text).unwrap();
        let zstd = zstd::encode_all(text.as_slice(), 3).unwrap();
        for (encoding, bytes) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
            let mut attributes = object_store::Attributes::new();
            attributes.insert(Attribute::ContentEncoding, encoding.into());
            let options = object_store::PutOptions { attributes, ..Default::default() };
            let key = bucket.key("x.narinfo").unwrap();
            bucket.run("x", bucket.store.put_opts(&key, bytes.into(), options)).unwrap();
            assert_eq!(bucket.get("x.narinfo", 4000).unwrap().unwrap(), text, "{encoding}");
            assert!(bucket.get("x.narinfo", 100).is_err(), "{encoding}");
        }
    }

    #[test]
    fn a_thread_of_an_asynchronous_runtime_is_refused_and_does_not_panic() {
        let address = BucketAddress::parse("b").unwrap();
        let bucket = Bucket::new(&address, &HttpOptions::default()).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(async { bucket.get("x", 1) }).unwrap_err();
        assert!(error.to_string().contains("asynchronous runtime"), "{error}");
    }
}

//! How this machine talks to the network, as its environment and nix.conf say.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ferry_cache::CacheAddress;
use ferry_store::http::{HttpOptions, HttpProxy};
use ferry_store::nix_conf::NixConf;

use crate::aws::{self, Surroundings};
use crate::failure::Failure;

/// The options for requests to `address`: proxies and certificates as curl and Nix find them,
/// `http-connections`, `connect-timeout` and `download-attempts` from nix.conf; for a bucket, who
/// asks. The second part says what of that should be told.
pub(crate) fn http_options(
    conf: &NixConf,
    address: &str,
) -> Result<(HttpOptions, Option<String>), Failure> {
    let mut options = HttpOptions::default();
    if let Some(connections) = number(conf, "http-connections")? {
        // Nix takes 0 for "without limit".
        options.connections = usize::try_from(connections).ok().filter(|n| *n > 0).unwrap_or(128);
    }
    if let Some(seconds) = number(conf, "connect-timeout")?.filter(|seconds| *seconds > 0) {
        options.timeouts.connect = Duration::from_secs(seconds);
    }
    if let Some(attempts) = number(conf, "download-attempts")? {
        let retries = attempts.saturating_sub(1);
        options.retries = u32::try_from(retries).unwrap_or(u32::MAX);
    }
    let parsed = CacheAddress::parse(address).ok();
    let url = parsed.as_ref().and_then(CacheAddress::url);
    options.proxy = proxy(url.as_deref().unwrap_or(address));
    let mut told = None;
    if let Some(bucket) = parsed.filter(CacheAddress::is_bucket) {
        let variable = |name: &str| env::var(name).ok();
        let surroundings =
            Surroundings { variable: &variable, home: env::home_dir(), maker: aws::maker() };
        (options.s3, told) = surroundings.s3_options(bucket.profile())?;
    }
    options.certificates = certificates(conf)?;
    Ok((options, told))
}

fn number(conf: &NixConf, name: &str) -> Result<Option<u64>, Failure> {
    let parse = |text: &str| {
        text.trim()
            .parse()
            .map_err(|_| Failure::usage(format!("setting `{name}`: `{text}` is not a number")))
    };
    conf.get(name).map(parse).transpose()
}

fn proxy(address: &str) -> Option<HttpProxy> {
    // The upper-case form of this one would let a web request set it, in a server.
    let own = if address.starts_with("https://") {
        ["https_proxy", "HTTPS_PROXY"].as_slice()
    } else {
        ["http_proxy"].as_slice()
    };
    let find = |names: &[&str]| {
        names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    };
    let url = find(own).or_else(|| find(&["all_proxy", "ALL_PROXY"]))?;
    let except = find(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let except = except.split(',').map(|host| host.trim().to_owned());
    Some(HttpProxy { url, except: except.filter(|host| !host.is_empty()).collect() })
}

fn certificates(conf: &NixConf) -> Result<Option<Vec<u8>>, Failure> {
    let named = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"].into_iter().find_map(env::var_os);
    let file = named.map(PathBuf::from).or_else(|| conf.get("ssl-cert-file").map(PathBuf::from));
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else { return Ok(None) };
    // nixpkgs sets the variable to this where there is to be no network.
    if file.as_os_str() == "/no-cert-file.crt" {
        return Ok(None);
    }
    let read = fs::read(&file);
    read.map(Some).map_err(|error| {
        Failure::new(format!("cannot read the certificates in {}: {error}", file.display()))
    })
}

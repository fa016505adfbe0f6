//! Addresses of buckets: `s3://BUCKET[/PREFIX][?PARAMETERS]`, with Nix's parameters.

use std::ops::RangeInclusive;

use ferry_store::http::Uri;
use percent_encoding::percent_decode_str;

/// Where Amazon keeps buckets of which nothing else is said.
const DEFAULT_REGION: &str = "us-east-1";

/// What the address of a bucket says.
#[derive(Clone, Debug, Default)]
pub(crate) struct BucketAddress {
    bucket: String,
    /// What the names of all its files begin with: nothing, or a name with a slash at its end.
    prefix: String,
    /// The profile that the credentials are to be found under.
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
    endpoint: Option<String>,
    scheme: Option<String>,
    style: Style,
    pub(crate) storage_class: Option<String>,
    /// Bytes to a part of a large file.
    pub(crate) part_size: Option<u64>,
    /// What is larger goes in parts, in bytes.
    pub(crate) in_parts_above: Option<u64>,
}

/// Sizes of parts, and of what need not be in parts, that S3 takes.
const PARTS: RangeInclusive<u64> = 5 << 20..=5 << 30;

/// Whether the bucket stands in the host of a URL, or in its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Style {
    #[default]
    Auto,
    Path,
    Virtual,
}

impl BucketAddress {
    /// Understands what stands between `s3://` and the question mark.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_fit) || bucket.contains("..") {
            return Err("behind `s3://` stands the name of a bucket".to_owned());
        }
        let prefix = percent_decode_str(prefix.trim_end_matches('/'))
            .decode_utf8()
            .map_err(|_| "what stands behind the bucket is not UTF-8".to_owned())?;
        let is_odd =
            |part: &str| matches!(part, "" | "." | "..") || part.chars().any(char::is_control);
        let prefix = match &*prefix {
            "" => String::new(),
            odd if odd.split('/').any(is_odd) => {
                return Err("no file of a bucket is called like this".to_owned());
            }
            prefix => format!("{prefix}/"),
        };
        Ok(Self { bucket: bucket.to_owned(), prefix, ..Self::default() })
    }

    /// Takes a parameter that only buckets have; false where it is none of those.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let given = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "profile" => self.profile = given(),
            "region" => self.region = region(value)?,
            "endpoint" => self.endpoint = given(),
            "scheme" if matches!(value, "http" | "https") => self.scheme = given(),
            "scheme" => return Err(format!("`scheme={value}` is neither `http` nor `https`")),
            "addressing-style" => {
                self.style = match value {
                    "auto" => Style::Auto,
                    "path" => Style::Path,
                    "virtual" => Style::Virtual,
                    _ => {
                        let known = "is none of `auto`, `path` and `virtual`";
                        return Err(format!("`addressing-style={value}` {known}"));
                    }
                }
            }
            "storage-class" => self.storage_class = given(),
            "multipart-chunk-size" | "buffer-size" => self.part_size = Some(bytes(name, value)?),
            "multipart-threshold" => self.in_parts_above = Some(bytes(name, value)?),
            "multipart-upload" if matches!(value, "true" | "yes" | "1") => {}
            "multipart-upload" => {
                let reason = "large files always go in parts: raise `multipart-threshold`";
                return Err(format!("`multipart-upload={value}`: {reason}"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Where requests go: the URL of the bucket, without a slash at the end. `region` is that of
    /// a bucket that names none.
    pub(crate) fn url(&self, region: Option<&str>) -> Result<String, String> {
        let region = self.region_or(region);
        let bucket = &self.bucket;
        let usual = self.scheme.as_deref().unwrap_or("https");
        let amazon = format!("s3.{region}.amazonaws.com");
        let base = self.endpoint.as_deref().unwrap_or(&amazon);
        let (scheme, rest) = base.split_once("://").unwrap_or((usual, base));
        let rest = rest.trim_end_matches('/');
        // Certificates are for one name below Amazon's, not for two.
        let is_dotted = bucket.contains('.');
        if self.style == Style::Virtual && is_dotted {
            return Err(format!(
                "`addressing-style=virtual` does not go with a dot in the name of the bucket `{bucket}`"
            ));
        }
        let is_virtual = match self.style {
            Style::Auto => self.endpoint.is_none() && !is_dotted,
            style => style == Style::Virtual,
        };
        let url = if is_virtual {
            format!("{scheme}://{bucket}.{rest}")
        } else {
            format!("{scheme}://{rest}/{bucket}")
        };
        let parsed: Option<Uri> = url.parse().ok();
        let is_fit = parsed.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.query().is_none()
        });
        if is_fit { Ok(url) } else { Err("`endpoint` is not the URL of a server".to_owned()) }
    }

    /// The region of the bucket; `other` where it names none.
    pub(crate) fn region_or<'a>(&'a self, other: Option<&'a str>) -> &'a str {
        self.region.as_deref().or(other).unwrap_or(DEFAULT_REGION)
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The address with all that tells one bucket from another, and nothing else.
    pub(crate) fn shown(&self) -> String {
        let mut shown = format!("s3://{}/{}", self.bucket, self.prefix);
        shown.truncate(shown.trim_end_matches('/').len());
        let parameters =
            [("endpoint", &self.endpoint), ("scheme", &self.scheme), ("region", &self.region)];
        let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (number, (name, value)) in given.enumerate() {
            let sign = if number == 0 { '?' } else { '&' };
            shown.push_str(&format!("{sign}{name}={value}"));
        }
        shown
    }
}

fn bytes(name: &str, value: &str) -> Result<u64, String> {
    value.parse().ok().filter(|bytes| PARTS.contains(bytes)).ok_or_else(|| {
        format!("`{name}={value}` is no number of bytes from {} to {}", PARTS.start(), PARTS.end())
    })
}

/// A region is a part of a host name, and of what is signed.
fn region(value: &str) -> Result<Option<String>, String> {
    match value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        true => Ok(Some(value.to_owned()).filter(|value| !value.is_empty())),
        false => Err(format!("`region={value}` is no region")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, parameters: &[(&str, &str)]) -> Result<BucketAddress, String> {
        let mut address = BucketAddress::parse(text)?;
        for (name, value) in parameters {
            assert!(address.set(name, value)?, "{name}");
        }
        Ok(address)
    }

    #[test]
    fn requests_go_where_nix_sends_them() {
        for (text, parameters, url) in [
            ("b", &[][..], "https://b.s3.us-east-1.amazonaws.com"),
            ("b/p/q/", &[("region", "eu-west-1")], "https://b.s3.eu-west-1.amazonaws.com"),
            ("b.c", &[], "https://s3.us-east-1.amazonaws.com/b.c"),
            ("b", &[("addressing-style", "path")], "https://s3.us-east-1.amazonaws.com/b"),
            ("b", &[("scheme", "http")], "http://b.s3.us-east-1.amazonaws.com"),
            ("b", &[("endpoint", "host:9000"), ("scheme", "http")], "http://host:9000/b"),
            ("b", &[("endpoint", "host")], "https://host/b"),
            ("b", &[("endpoint", "http://host:1/s3/")], "http://host:1/s3/b"),
            (
                "b",
                &[("endpoint", "http://host:1"), ("addressing-style", "virtual")],
                "http://b.host:1",
            ),
        ] {
            assert_eq!(address(text, parameters).unwrap().url(None).as_deref(), Ok(url));
        }
        let elsewhere = address("b", &[]).unwrap().url(Some("eu-north-1")).unwrap();
        assert_eq!(elsewhere, "https://b.s3.eu-north-1.amazonaws.com");
    }

    #[test]
    fn what_is_no_bucket_is_refused() {
        for text in ["", "/x", "a b", "a@b", "a:9000", "a..b", "b/../x", "b/x//y", "b/%00", "b/%ff"]
        {
            assert!(BucketAddress::parse(text).is_err(), "{text}");
        }
        for (name, value) in [
            ("scheme", "ftp"),
            ("addressing-style", "odd"),
            ("region", "a/b"),
            ("region", "evil.example.org#"),
            ("multipart-upload", "false"),
            ("multipart-chunk-size", "100"),
            ("buffer-size", "5 MiB"),
            ("multipart-threshold", "6000000000"),
        ] {
            assert!(address("b", &[(name, value)]).is_err(), "{name}={value}");
        }
        for endpoint in ["ftp://host", "http://", "http://u:p@host", "http://host?x", "a b"] {
            assert!(
                address("b", &[("endpoint", endpoint)]).unwrap().url(None).is_err(),
                "{endpoint}"
            );
        }
        assert!(address("b.c", &[("addressing-style", "virtual")]).unwrap().url(None).is_err());
    }

    #[test]
    fn what_is_shown_tells_buckets_apart() {
        let plain = address("b/p", &[("profile", "x")]).unwrap();
        assert_eq!(plain.shown(), "s3://b/p");
        let parameters = [("endpoint", "http://host:1"), ("region", "eu-west-1")];
        let other = address("b", &parameters).unwrap();
        assert_eq!(other.shown(), "s3://b?endpoint=http://host:1&region=eu-west-1");
    }
}

//! How a failure is told: what went wrong, what to do next, and the exit code.

use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use ferry_bundle::BundleError;
use ferry_cache::CacheError;
use ferry_graph::query::QueryError;
use ferry_graph::{GraphError, Missing};
use ferry_store::Error;
use ferry_store::evaluation::EvaluationError;
use serde_json::{Value, json};

use crate::context::COMMAND_LINE;
use crate::output::harmless;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    /// What it is about, a line each: all of it, however much that is.
    list: Vec<String>,
    hint: Option<String>,
    /// Where in a bundle something is wrong, in bytes, where that is known.
    offset: Option<u64>,
    code: u8,
}

/// Longest message shown, in characters; a list of missing paths may be long, a hostile name longer.
const LONGEST_MESSAGE: usize = 100_000;
/// What was asked could not be done, or a check did not pass.
const FAILED: u8 = 1;
/// What was asked does not make sense.
const USAGE: u8 = 2;

impl Failure {
    /// A failure with a message of its own.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            list: Vec::new(),
            hint: None,
            offset: None,
            code: FAILED,
        }
    }

    /// A request that does not make sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { code: USAGE, ..Self::new(message) }
    }

    /// Lists what it is about.
    pub(crate) fn list(mut self, list: Vec<String>) -> Self {
        self.list = list;
        self
    }

    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Whether something failed that made sense.
    pub(crate) fn is_of_the_work(&self) -> bool {
        self.code == FAILED
    }

    /// What went wrong, for programs.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": self.message, "offset": self.offset })
    }

    /// A query without an answer: shown where it stands, with the advice that its cause has.
    pub(crate) fn asked(error: &QueryError) -> Self {
        let shown = Self::new(error.render());
        let Some(cause) = error.source() else { return Self::usage(shown.message) };
        let store_error = match cause.downcast_ref::<GraphError>() {
            Some(GraphError::Source { source, .. }) => source.downcast_ref::<Error>(),
            _ => cause.downcast_ref::<Error>(),
        };
        match (cause.downcast_ref::<Self>(), store_error) {
            (Some(failure), _) => Self { hint: failure.hint.clone(), code: failure.code, ..shown },
            (None, Some(error)) => {
                let (hint, code) = store_hint(error);
                Self { hint, code, ..shown }
            }
            (None, None) => shown,
        }
    }

    /// Prints it to standard error.
    #[allow(clippy::print_stderr)]
    pub(crate) fn report(&self) -> ExitCode {
        let end = self.message.char_indices().nth(LONGEST_MESSAGE).map(|(end, _)| end);
        let message = end.and_then(|end| self.message.get(..end)).unwrap_or(&self.message);
        let cut = if end.is_some() { "…" } else { "" };
        eprintln!("ferry: error: {}{cut}", harmless(message));
        for line in &self.list {
            eprintln!("  {}", harmless(line));
        }
        if let Some(hint) = &self.hint {
            eprintln!("ferry: hint: {}", harmless(hint));
        }
        ExitCode::from(self.code)
    }
}

// A query hands the failures of what it asks through.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<GraphError> for Failure {
    fn from(error: GraphError) -> Self {
        Error::from(error).into()
    }
}

impl From<EvaluationError> for Failure {
    fn from(error: EvaluationError) -> Self {
        let hint = match &error {
            EvaluationError::Changed { .. } | EvaluationError::Gone { .. } => {
                "record the evaluation again"
            }
            EvaluationError::TooLarge { .. } => {
                "make it smaller, keep it in a working tree of Git that ignores what is not needed, \
                 or allow more with --eval-limit"
            }
            EvaluationError::Occupied { .. } => "name another place with --eval-dir",
            EvaluationError::NotAnEvaluation { .. } => {
                "name a directory that `ferry load` has told, or the bundle"
            }
            _ => return Self::new(error),
        };
        Self::new(error).hint(hint)
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        let hint = bundle_hint(&error).map(str::to_owned);
        Self { hint, offset: offset(&error), ..Self::new(error) }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (hint, code) = store_hint(&error);
        let in_bundle = match &error {
            Error::Other(inner) => inner.downcast_ref::<BundleError>().and_then(offset),
            _ => None,
        };
        Self { hint, code, offset: in_bundle, ..Self::new(error) }
    }
}

fn offset(error: &BundleError) -> Option<u64> {
    match error {
        BundleError::Truncated { offset, .. } | BundleError::Damaged { offset, .. } => {
            Some(*offset)
        }
        _ => None,
    }
}

fn bundle_hint(error: &BundleError) -> Option<&'static str> {
    match error {
        BundleError::NotABundle { .. } => Some("a bundle is what `ferry pack` writes"),
        BundleError::UnknownVersion { .. } => {
            Some("use a newer ferry here, or pack with an older one")
        }
        BundleError::Truncated { .. } => {
            Some("the transfer stopped early or the disk was full; copy the bundle again")
        }
        BundleError::Damaged { .. } => {
            Some("copy the bundle again and compare checksums with the sending side")
        }
        BundleError::NotSigned { .. } => {
            Some("sign it when packing (--sign-key), or ask for a key that has signed it")
        }
        BundleError::MissingVolumes { .. } => Some(
            "copy those volumes again, beside the others, or name them as well; parity stands in for \
             as many as there are volumes of it",
        ),
        BundleError::NeedsBase { .. } => Some(
            "name that store: with --against, or as one more --store of a query (`ferry load` asks \
             the one that it loads into)",
        ),
        BundleError::StreamUsedUp { .. } => Some("write the bundle to a file first"),
        BundleError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
            Some("make room, or write the bundle somewhere else")
        }
        _ => None,
    }
}

fn cache_hint(error: &CacheError) -> Option<&'static str> {
    match error {
        CacheError::NoNar { .. } | CacheError::BadNar { .. } => Some(
            "the cache is damaged: remove the narinfo of this path there, and copy the path into \
             it again from a store that has it",
        ),
        CacheError::BadNarinfo { .. }
        | CacheError::BadRealisation { .. }
        | CacheError::BadUrl { .. }
        | CacheError::OtherPath { .. } => {
            Some("the cache is damaged, or what answers is something else")
        }
        CacheError::OtherStore { .. } => Some("set NIX_STORE_DIR to that directory"),
        CacheError::S3 { code, .. } => s3_hint(code),
        CacheError::NoCredentials { .. } => Some(
            "put keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure \
             export-credentials --format env` prints those of any profile)",
        ),
        CacheError::NoListing { .. } => Some(
            "name store paths, where the command takes some, or keep an index in the cache \
             (`ferry cache index --write` where its files are)",
        ),
        CacheError::BadState { .. } => Some("name another file with --state"),
        CacheError::BadIndex { .. } => {
            Some("write it again: `ferry cache index --write`, where the files of the cache are")
        }
        _ => None,
    }
}

/// What to do about what S3 says, by the code that it has for it.
fn s3_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "NoSuchBucket" | "InvalidBucketName" => {
            "make the bucket first, or mend its name; where it is not Amazon's, say where with \
             `endpoint=https://…` in the address"
        }
        "AccessDenied" => {
            "reading takes s3:GetObject and s3:ListBucket, writing s3:PutObject as well; keys come \
             from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from a profile in \
             ~/.aws/credentials (`profile=…` in the address)"
        }
        "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "InvalidToken" | "NotSignedUp" => {
            "look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or at the profile in \
             ~/.aws/credentials"
        }
        "ExpiredToken" => "these keys held for some time only, which is over: get new ones",
        "RequestTimeTooSkewed" => "set the clock of this machine",
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            "name the region of the bucket, with `region=…` in the address"
        }
        _ => return None,
    })
}

const MAKE_ROOM: &str = "make room (`nix-collect-garbage`) and run the same command again: what \
                         is whole stays, the rest follows";

fn store_hint(error: &Error) -> (Option<String>, u8) {
    let hint = match error {
        Error::NotValid { .. } => "build or fetch it first, or name another store with --store",
        Error::MissingReference { .. } | Error::MissingPaths { .. } => {
            "the store it comes from is incomplete; repair it there with `nix-store --verify`"
        }
        Error::Conflict { .. } => {
            "the path says what its content has to be, and one of the two is not that: let \
             `nix-store --verify-path` look at the present one"
        }
        Error::Untrusted { .. } => {
            "sign when packing (--sign-key) and trust that key here (--trusted-public-key, or \
             trusted-public-keys in nix.conf); or accept it as it is with --no-check-sigs"
        }
        Error::Daemon { message, .. } if message.contains("lacks a") => {
            "sign when packing (--sign-key) and list that key in the daemon's \
             trusted-public-keys; or load with --no-check-sigs as a user in its trusted-users"
        }
        // It has this from the system, which says it in English wherever daemons run.
        Error::Daemon { message, .. }
            if message.contains("No space left on device") || message.contains("disk is full") =>
        {
            MAKE_ROOM
        }
        Error::NotTrustedByDaemon { .. } => {
            "load a signed bundle, or run this as root or a user in trusted-users"
        }
        Error::WrongNarHash { .. } | Error::WrongNarSize { .. } | Error::MalformedNar { .. } => {
            "the object is damaged where it comes from; `nix-store --verify-path` and \
             `nix-store --repair-path` mend a store"
        }
        Error::Export { .. } => {
            "write it again with `nix-store --export $(nix-store --query --requisites PATH)`, and \
             copy it as a binary file"
        }
        Error::MissingFacts { missing, .. } => {
            return (missing.first().and_then(missing_hint), FAILED);
        }
        Error::BadUri { .. } | Error::BadInstallable { .. } => return (None, USAGE),
        Error::Setting { file, .. } if file == COMMAND_LINE => return (None, USAGE),
        Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull => MAKE_ROOM,
        Error::Io { action, source } if source.kind() == ErrorKind::PermissionDenied => {
            match ["/nix/store", "/nix/var/"].iter().any(|part| action.contains(part)) {
                true => {
                    "run this as root, or go through the daemon (`--store daemon`, `--to daemon`)"
                }
                false => "look at who may read and write it",
            }
        }
        Error::Other(inner) => {
            if let Some(CacheError::BadAddress { .. }) = inner.downcast_ref() {
                return (None, USAGE);
            }
            let bundle = inner.downcast_ref::<BundleError>().and_then(bundle_hint);
            match bundle.or_else(|| inner.downcast_ref::<CacheError>().and_then(cache_hint)) {
                Some(hint) => hint,
                None => return (None, FAILED),
            }
        }
        _ => return (None, FAILED),
    };
    (Some(hint.to_owned()), FAILED)
}

/// What to do about a fact that is missing.
fn missing_hint(missing: &Missing) -> Option<String> {
    let hint = match missing {
        Missing::Object { output_of: Some((derivation, _)), .. } => {
            // The one command for this that every version of Nix has.
            return Some(format!("build it first: nix-store --realise {derivation}"));
        }
        Missing::Object { .. } | Missing::Derivation(_) => {
            "build or fetch it first, or name another store with --store"
        }
        Missing::Deriver { .. } => {
            "name its `.drv`, or take the path itself with --set runtime or --also"
        }
        Missing::Output(_) => "build it first, and name its path",
        Missing::Listing(_) => {
            "ask where the files are, or go on without what it has, with --partial"
        }
        Missing::Evaluation(_) => "record it with `ferry trace`, or name a recording with --trace",
        _ => return None,
    };
    Some(hint.to_owned())
}

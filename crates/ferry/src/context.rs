//! What the environment says, read once: the variables and files that Nix reads.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_bundle::{Bundle, Volumes};
use ferry_cache::CacheAddress;
use ferry_formats::StoreDir;
use ferry_formats::keys::{PublicKey, SecretKey, parse_public_key};
use ferry_store::daemon::DaemonOptions;
use ferry_store::http::HttpOptions;
use ferry_store::nix_conf::NixConf;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose, StoreUri, Surroundings};

use crate::bars::Bars;
use crate::cli::{BundleKeys, Global, Trust};
use crate::failure::Failure;
use crate::network::http_options;
use crate::output::Talk;
use crate::sources::is_cache;

/// Where settings come from that are given with the command.
pub(crate) const COMMAND_LINE: &str = "--option";

/// What every command has at hand.
pub(crate) struct Context {
    pub(crate) json: bool,
    pub(crate) verbose: bool,
    pub(crate) talk: Talk,
    pub(crate) bars: Arc<Bars>,
    pub(crate) surroundings: Surroundings,
    daemon_verbosity: u64,
    /// Settings from the command line, for a daemon as well.
    settings: Vec<(String, String)>,
    conf: NixConf,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let working_directory = env::current_dir()
            .map_err(|error| Failure::new(format!("cannot find the working directory: {error}")))?;
        let mut conf = nix_conf()?;
        let settings: Vec<(String, String)> = global
            .option
            .chunks(2)
            .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())))
            .collect();
        let talk = Talk { quiet: global.quiet };
        for (name, value) in &settings {
            if let Some(meant) = misspelt(name) {
                talk.say(format!("warning: --option {name}: did you mean `{meant}`?"));
            }
            conf.set(name, value, COMMAND_LINE);
        }
        Ok(Self {
            json: global.json,
            verbose: global.verbose > 0,
            talk,
            bars: Arc::new(Bars::new(global.quiet)),
            surroundings: Surroundings {
                // Inside a build there is only the second, and Nix takes that too.
                store_dir: env::var("NIX_STORE_DIR").or_else(|_| env::var("NIX_STORE")).ok(),
                state_dir: env::var_os("NIX_STATE_DIR").map(PathBuf::from),
                daemon_socket: env::var_os("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
                working_directory,
            },
            daemon_verbosity: daemon_verbosity(global),
            settings,
            conf,
        })
    }

    /// Which signatures count: nix.conf, this machine's own keys, and the keys given.
    pub(crate) fn trust(&self, given: &Trust) -> Result<TrustPolicy, Failure> {
        let mut trust = self.conf.trust_policy()?;
        let own = self.conf.get("secret-key-files").unwrap_or_default();
        for file in own.split_whitespace().map(PathBuf::from) {
            // Nix passes over those that this user may not read, too.
            let Ok(keys) = secret_keys(&[file]) else { continue };
            let public = keys.iter().map(SecretKey::public_key_text);
            trust
                .trusted_public_keys
                .extend(public.filter_map(|text| parse_public_key(&text).ok()));
        }
        let given = key_texts("--trusted-public-key", &given.trusted_public_key)?;
        let parsed = given.iter().filter_map(|text| parse_public_key(text).ok());
        trust.trusted_public_keys.extend(parsed);
        Ok(trust)
    }

    /// Whether derivations are substituted that say that they are not.
    pub(crate) fn always_allows_substitutes(&self) -> Result<bool, Failure> {
        Ok(self.conf.boolean("always-allow-substitutes")?.unwrap_or(false))
    }

    /// Opens the store with this address.
    pub(crate) fn open_store(
        &self,
        uri: &str,
        purpose: Purpose,
        trust: TrustPolicy,
        no_check_signatures: bool,
        trusted_public_keys: &[String],
    ) -> Result<OpenStore, Failure> {
        // A store made in there would spoil it for those who substitute from it.
        if is_cache(self, uri) {
            return Err(Failure::usage(format!("{uri} is a binary cache, and no store")).hint(
                "`ferry copy --from` and `--to` take binary caches, and so does `ferry query`",
            ));
        }
        let mut settings = self.settings.clone();
        if !trusted_public_keys.is_empty() {
            let keys = key_texts("--trusted-public-key", trusted_public_keys)?;
            settings.push(("extra-trusted-public-keys".to_owned(), keys.join(" ")));
        }
        let options = DaemonOptions {
            no_check_signatures,
            verbosity: self.daemon_verbosity,
            settings,
            log: Arc::clone(&self.bars) as _,
        };
        let scratch = env::temp_dir();
        Ok(StoreUri::parse(uri, purpose, &self.surroundings)?.open(trust, options, scratch))
    }

    /// Opens the store that has what a bundle was packed against, to look things up there.
    pub(crate) fn open_against(&self, uri: Option<&String>) -> Result<Option<OpenStore>, Failure> {
        // Nothing is written to it, and its signatures are not looked at.
        let open = |uri| self.open_store(uri, Purpose::Read, TrustPolicy::accept_all(), false, &[]);
        uri.map(|uri| open(uri)).transpose()
    }

    /// Says what of a bundle was computed from parity.
    pub(crate) fn tell_recovered(&self, bundle: &Bundle) {
        for (file, pieces) in bundle.volumes().map(Volumes::recovered).unwrap_or_default() {
            self.talk.say(format!(
                "{} is missing or damaged: {pieces} pieces of it were computed from parity \
                 (`ferry repair` writes it again)",
                file.display()
            ));
        }
    }

    /// How to send requests to `address`.
    pub(crate) fn http_options(&self, address: &str) -> Result<HttpOptions, Failure> {
        let (options, told) = http_options(&self.conf, address)?;
        told.into_iter().for_each(|told| self.talk.say(told));
        Ok(options)
    }

    /// The directory that store paths begin with where no store says so.
    pub(crate) fn store_dir(&self) -> Result<StoreDir, Failure> {
        match &self.surroundings.store_dir {
            None => Ok(StoreDir::default()),
            Some(text) => StoreDir::new(text.clone())
                .map_err(|error| Failure::usage(format!("NIX_STORE_DIR: {error}"))),
        }
    }

    /// Where answers from the network are kept, if there is a home.
    pub(crate) fn cache_directory() -> Option<PathBuf> {
        let home = || env::home_dir().map(|home| home.join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        cache.map(|cache| cache.join("ferry"))
    }

    /// Where roots are kept that a daemon is told about.
    pub(crate) fn user_state_directory() -> Result<PathBuf, Failure> {
        user_directory("XDG_STATE_HOME", ".local/state", "--no-root")
    }

    /// Where evaluations are laid out.
    pub(crate) fn user_data_directory() -> Result<PathBuf, Failure> {
        user_directory("XDG_DATA_HOME", ".local/share", "--eval-dir or --no-eval")
    }

    /// Directories that hold what has nothing to do with each other.
    pub(crate) fn directories_of_everything() -> Vec<PathBuf> {
        let fixed = ["/home", "/tmp", "/var/tmp", "/etc", "/nix", "/nix/store"];
        fixed
            .into_iter()
            .map(PathBuf::from)
            .chain(env::home_dir())
            .chain([env::temp_dir()])
            .collect()
    }
}

/// The directory for ferry in one that a variable names, or in this one below the home. Whoever has
/// no home can use `option`.
fn user_directory(variable: &str, below_home: &str, option: &str) -> Result<PathBuf, Failure> {
    let home = || env::home_dir().map(|home| home.join(below_home));
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(home)
        .map(|found| found.join("ferry"))
        .ok_or_else(|| {
            Failure::new("cannot find the home directory")
                .hint(format!("set HOME, or use {option}"))
        })
}

/// The settings that are looked at.
const SETTINGS: [&str; 10] = [
    "always-allow-substitutes",
    "binary-cache-public-keys",
    "connect-timeout",
    "download-attempts",
    "http-connections",
    "require-sigs",
    "secret-key-files",
    "signed-binary-caches",
    "ssl-cert-file",
    "trusted-public-keys",
];

/// The setting that was meant, perhaps, where a name is nearly that of one. No other setting of
/// Nix's comes that near.
fn misspelt(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("extra-").unwrap_or(name);
    let near = |known: &&str| *known != name && strsim::damerau_levenshtein(known, name) <= 2;
    match SETTINGS.contains(&name) {
        true => None,
        false => SETTINGS.into_iter().find(near),
    }
}

/// How much a daemon should say, as Nix counts: warnings, unless there is to be less or more.
fn daemon_verbosity(global: &Global) -> u64 {
    match (global.quiet, global.verbose) {
        (true, _) => 0,
        (false, 0) => 1,
        (false, more) => 2 + u64::from(more),
    }
}

/// The public keys given with an option, each by itself or in a file; all of them can be parsed.
fn key_texts(option: &str, given: &[String]) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for given in given {
        // No file that is meant has a colon in its name.
        if given.contains(':') {
            for word in given.split_whitespace() {
                parse_public_key(word)
                    .map_err(|error| Failure::usage(format!("{option}: {error}")))?;
                keys.push(word.to_owned());
            }
            continue;
        }
        let text = std::fs::read_to_string(given)
            .map_err(|error| Failure::new(format!("{option}: cannot read {given}: {error}")))?;
        let mut words = text.split_whitespace().peekable();
        // What is in it is not shown: it may be a secret key.
        if words.peek().is_none() || text.split_whitespace().any(|it| parse_public_key(it).is_err())
        {
            return Err(Failure::new(format!(
                "{option}: {given} is no file of public keys, `NAME:BASE64` each"
            )));
        }
        keys.extend(words.map(str::to_owned));
    }
    Ok(keys)
}

/// Reads the configuration as Nix does: the system's file, the user's files, `NIX_CONFIG`.
fn nix_conf() -> Result<NixConf, Failure> {
    let mut conf = NixConf::default();
    let system =
        env::var_os("NIX_CONF_DIR").map_or_else(|| PathBuf::from("/etc/nix"), PathBuf::from);
    conf.read_file(&system.join("nix.conf"))?;
    // The first in the list has the last word.
    for file in user_files().iter().rev() {
        conf.read_file(file)?;
    }
    if let Ok(text) = env::var("NIX_CONFIG") {
        conf.read_text(&text, "NIX_CONFIG")?;
    }
    Ok(conf)
}

fn user_files() -> Vec<PathBuf> {
    if let Some(files) = env::var_os("NIX_USER_CONF_FILES") {
        return env::split_paths(&files).collect();
    }
    let home = env::home_dir().map(|home| home.join(".config"));
    let own = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or(home);
    let shared = env::var_os("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    own.into_iter()
        .chain(env::split_paths(&shared))
        .map(|directory| directory.join("nix/nix.conf"))
        .collect()
}

/// Reads secret key files.
pub(crate) fn secret_keys(files: &[PathBuf]) -> Result<Vec<SecretKey>, Failure> {
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", file.display()))
            })?;
            SecretKey::parse(&text)
                .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
        })
        .collect()
}

/// Opens a bundle, or the volumes of one; `-` is standard input. What its derivations are coded
/// against, if that is so, is read from `store`.
pub(crate) fn open_bundle(files: &[PathBuf], store: Option<&OpenStore>) -> Result<Bundle, Failure> {
    if let Some(directory) = files.iter().find(|file| file.is_dir()) {
        let failure =
            Failure::new(format!("{} is a directory, and no bundle", directory.display()));
        return Err(match CacheAddress::is_directory(directory) {
            true => failure
                .hint("`ferry cache verify` and `ferry cache index` look into a binary cache"),
            false => failure,
        });
    }
    let store = store.map(OpenStore::store);
    let mut bundle = if files == [Path::new("-")] {
        Bundle::from_stream_against(std::io::stdin(), "<standard input>", store)?
    } else {
        Bundle::open_files(files, store)?
    };
    bundle.temporary_files_in(temporary_directory());
    Ok(bundle)
}

/// Where temporary files go that may be large: `/tmp` is in memory on many machines.
pub(crate) fn temporary_directory() -> PathBuf {
    let disk = Path::new("/var/tmp");
    match env::var_os("TMPDIR") {
        None if disk.is_dir() => disk.to_owned(),
        _ => env::temp_dir(),
    }
}

/// Makes sure that a bundle is signed by one of the keys that are given for that.
pub(crate) fn require_bundle_key(bundle: &Bundle, given: &BundleKeys) -> Result<(), Failure> {
    if given.require_bundle_key.is_empty() {
        return Ok(());
    }
    let keys = key_texts("--require-bundle-key", &given.require_bundle_key)?;
    let keys: Vec<PublicKey> = keys.iter().filter_map(|text| parse_public_key(text).ok()).collect();
    Ok(bundle.require_signature(&keys)?)
}

//! A store behind a Nix daemon, over its socket or over the standard streams of a command such as
//! `nix-daemon --stdio`.

mod connection;
pub(crate) mod one_nar;
mod realisations;
pub(crate) mod wire;
mod writer;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_formats::build_trace::Realisation;
use ferry_formats::keys::parse_signature;
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath};
use ferry_graph::Facts;

pub use connection::Trusted;

use crate::admission::Plan;
use crate::facts::{RealisedIn, StoreFacts};
use crate::progress::{Progress, Silent};
use crate::realisations::NotTaken;
use crate::store::NarVisitor;
use crate::trust::TrustPolicy;
use crate::{Destination, Error, Protection, Result, SignatureCheck, Store, StoreWriter, Wanted};
use connection::{Connection, Operation};
use one_nar::OneNar;
use wire::{read_bool, read_string, read_strings, read_u64, write_bytes, write_u64};

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Socket(PathBuf),
    /// A command that speaks the protocol on its standard streams.
    Command(Vec<String>),
}

/// What is asked of a daemon on each connection.
#[derive(Clone)]
pub struct DaemonOptions {
    /// Ask it not to check signatures. It obeys only users whom it trusts.
    pub no_check_signatures: bool,
    /// How much it should say: Nix's verbosity levels, 0 (errors) to 7.
    pub verbosity: u64,
    /// Settings for the connection. It takes most of them only from users whom it trusts.
    pub settings: Vec<(String, String)>,
    /// Hears what it logs.
    pub log: Arc<dyn Progress + Send>,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            no_check_signatures: false,
            verbosity: 0,
            settings: Vec::new(),
            log: Arc::new(Silent),
        }
    }
}

/// A store behind a daemon.
pub struct DaemonStore {
    address: Address,
    store_dir: StoreDir,
    options: DaemonOptions,
    trust: TrustPolicy,
    idle: Mutex<Vec<Connection>>,
}

/// How many requests are sent before their answers are read. Few enough for both directions to
/// fit in the buffers of a socket.
const PIPELINE: usize = 64;

impl DaemonStore {
    /// The store of the daemon at `address`. Connects when first asked something.
    #[must_use]
    pub fn new(address: Address, store_dir: StoreDir, options: DaemonOptions) -> Self {
        let nobody = TrustPolicy { require_signatures: true, trusted_public_keys: Vec::new() };
        Self { address, store_dir, options, trust: nobody, idle: Mutex::default() }
    }

    /// The same, with whose signatures count of what became of outputs. The daemon looks at those
    /// of paths, and at none of these.
    #[must_use]
    pub fn with_trust(self, trust: TrustPolicy) -> Self {
        Self { trust, ..self }
    }

    /// Nix's version on the other side, and whether it trusts us.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn hello(&self) -> Result<(String, Trusted)> {
        self.with(|connection| Ok((connection.nix_version.clone(), connection.trusted)))
    }

    /// Tells the daemon that `link`, which points into the store, is a garbage collector root.
    ///
    /// # Errors
    /// When it cannot be reached or refuses.
    pub fn add_indirect_root(&self, link: &Path) -> Result<()> {
        let link = link.to_string_lossy().into_owned();
        self.with(|connection| {
            connection.request(Operation::AddIndirectRoot, &[&link])?;
            connection.talk(|connection| read_u64(&mut connection.reader)).map(drop)
        })
    }

    /// Has the daemon make a garbage collector root for `path` at `root`, a place on *its* machine,
    /// if it does so for us; says whether it has.
    ///
    /// # Errors
    /// When it cannot be reached or refuses.
    pub fn add_permanent_root(&self, path: &StorePath, root: &Path) -> Result<bool> {
        let path = self.store_dir.render_path(path);
        let root = root.to_string_lossy().into_owned();
        self.with(|connection| {
            if !connection.makes_permanent_roots() {
                return Ok(false);
            }
            connection.request(Operation::AddPermRoot, &[&path, &root])?;
            connection.talk(|connection| read_string(&mut connection.reader))?;
            Ok(true)
        })
    }

    /// What it knows, for one graph.
    #[must_use]
    pub fn facts(&self) -> impl Facts + '_ {
        let facts = match &self.address {
            Address::Socket(_) => StoreFacts::new(self),
            // Such as ssh.
            Address::Command(_) => StoreFacts::over_network(self),
        };
        RealisedIn::new(Box::new(facts), self, |outputs| realisations::paths_of(self, outputs))
    }

    /// Where the daemon is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn connect(&self) -> Result<Connection> {
        let describe = Store::describe(self);
        let log = Arc::clone(&self.options.log);
        let mut connection = match &self.address {
            Address::Socket(socket) => Connection::connect(socket, &describe, log)?,
            Address::Command(command) => Connection::spawn(command, &describe, log)?,
        };
        self.set_options(&mut connection)?;
        Ok(connection)
    }

    fn set_options(&self, connection: &mut Connection) -> Result<()> {
        let verbosity = self.options.verbosity;
        connection.send(Operation::SetOptions, &[])?;
        connection.talk(|connection| {
            // keep failed, keep going, fall back, verbosity, jobs, silent time, build hook,
            // verbose builds, log type, build trace, cores, substitutes
            for number in [0, 0, 0, verbosity, 1, 0, 1, 0, 0, 0, 0, 0] {
                write_u64(&mut connection.writer, number)?;
            }
            write_u64(&mut connection.writer, self.options.settings.len() as u64)?;
            for (name, value) in &self.options.settings {
                write_bytes(&mut connection.writer, name.as_bytes())?;
                write_bytes(&mut connection.writer, value.as_bytes())?;
            }
            io::Write::flush(&mut connection.writer)
        })?;
        connection.answer()
    }

    /// Lends a connection. One on which anything failed is in an unknown state and is closed.
    fn with<T>(&self, exchange: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = exchange(&mut connection)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }

    fn parse_path(&self, text: &str) -> Result<StorePath> {
        self.store_dir.parse_path(text.as_bytes()).map_err(|source| Error::Protocol {
            daemon: Store::describe(self),
            reason: format!("`{text}`: {source}"),
        })
    }

    fn parse_paths(&self, texts: &[String]) -> Result<Vec<StorePath>> {
        texts.iter().map(|text| self.parse_path(text)).collect()
    }

    fn read_path_info(
        &self,
        connection: &mut Connection,
        path: &StorePath,
    ) -> Result<Option<PathInfo>> {
        let raw = connection.talk(|connection| {
            let reader = &mut connection.reader;
            if !read_bool(reader)? {
                return Ok(None);
            }
            let deriver = read_string(reader)?;
            let nar_hash = read_string(reader)?;
            let references = read_strings(reader)?;
            read_u64(reader)?; // registration time
            let nar_size = read_u64(reader)?;
            read_bool(reader)?; // whether it was built there
            let signatures = read_strings(reader)?;
            let ca = read_string(reader)?;
            Ok(Some((deriver, nar_hash, references, nar_size, signatures, ca)))
        })?;
        let Some((deriver, nar_hash, references, nar_size, signatures, ca)) = raw else {
            return Ok(None);
        };
        let bad = |what: &str, reason: String| {
            connection.protocol(format!("{what} of {}: {reason}", self.store_dir.render_path(path)))
        };
        let mut references = self.parse_paths(&references)?;
        references.sort();
        let mut signatures = signatures
            .iter()
            .map(|text| parse_signature(text).map_err(|e| bad("signature", e.to_string())))
            .collect::<Result<Vec<_>>>()?;
        signatures.sort();
        Ok(Some(PathInfo {
            path: path.clone(),
            nar_hash: NarHash::parse(&nar_hash).map_err(|e| bad("NAR hash", e.to_string()))?,
            nar_size,
            references: references.into(),
            deriver: if deriver.is_empty() { None } else { Some(self.parse_path(&deriver)?) },
            ca: match ca.as_str() {
                "" => None,
                ca => Some(
                    ContentAddress::parse(ca).map_err(|e| bad("content address", e.to_string()))?,
                ),
            },
            signatures,
        }))
    }
}

impl Store for DaemonStore {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        match &self.address {
            Address::Socket(socket) => format!("the Nix daemon at {}", socket.display()),
            Address::Command(command) => format!("the Nix daemon behind `{}`", command.join(" ")),
        }
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        let infos = self.path_infos(std::slice::from_ref(path))?;
        Ok(infos.into_iter().next().flatten())
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        // Several at a time.
        let mut infos = Vec::with_capacity(paths.len());
        self.with(|connection| {
            for paths in paths.chunks(PIPELINE) {
                for path in paths {
                    let path = self.store_dir.render_path(path);
                    connection.send(Operation::QueryPathInfo, &[&path])?;
                }
                connection.talk(|connection| io::Write::flush(&mut connection.writer))?;
                for path in paths {
                    connection.answer()?;
                    infos.push(self.read_path_info(connection, path)?);
                }
            }
            Ok(())
        })?;
        Ok(infos)
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        let found = self.with(|connection| {
            connection.request(Operation::QueryAllValidPaths, &[])?;
            connection.talk(|connection| read_strings(&mut connection.reader))
        })?;
        self.parse_paths(&found).map(Some)
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        let path = self.store_dir.render_path(path);
        let found = self.with(|connection| {
            connection.request(Operation::QueryValidDerivers, &[&path])?;
            connection.talk(|connection| read_strings(&mut connection.reader))
        })?;
        self.parse_paths(&found)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        // The answer is the bare NAR: nothing but itself says where it ends.
        for info in wanted {
            let path = self.store_dir.render_path(&info.path);
            self.with(|connection| {
                connection.request(Operation::NarFromPath, &[&path])?;
                let mut nar = OneNar::new(&mut connection.reader).take(info.nar_size);
                visit(info, &mut nar)?;
                if nar.limit() > 0 {
                    return Err(Error::WrongNarSize {
                        path,
                        expected: info.nar_size,
                        found: info.nar_size - nar.limit(),
                    });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn realisations(&self, paths: &Wanted) -> Result<Vec<Realisation>> {
        realisations::of_paths(self, paths)
    }

    fn protect(&self, paths: &[StorePath]) -> Result<Protection> {
        // Temporary roots live as long as the connection on which they were asked for.
        let mut connection = self.connect()?;
        for paths in paths.chunks(PIPELINE) {
            for path in paths {
                connection.send(Operation::AddTempRoot, &[&self.store_dir.render_path(path)])?;
            }
            connection.talk(|connection| io::Write::flush(&mut connection.writer))?;
            for _ in paths {
                connection.answer()?;
                connection.talk(|connection| read_u64(&mut connection.reader))?;
            }
        }
        let present = self.path_infos(paths)?;
        match paths.iter().zip(present).find(|(_, info)| info.is_none()) {
            Some((path, _)) => Err(Error::NotValid {
                path: self.store_dir.render_path(path),
                store: Store::describe(self),
            }),
            None => Ok(Protection::by(connection)),
        }
    }
}

impl Destination for DaemonStore {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        Store::describe(self)
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        let infos = self.path_infos(paths)?;
        Ok(infos.into_iter().map(|info| info.map(|info| info.nar_hash)).collect())
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        Store::derivation_text(self, path)
    }

    fn derivations(&self) -> Option<&dyn Store> {
        Some(self)
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        SignatureCheck::ByDestination
    }

    fn takes_realisations(&self) -> bool {
        true
    }

    fn realisation_trust(&self) -> Option<&TrustPolicy> {
        Some(&self.trust)
    }

    fn add_realisations(&self, offered: &[Realisation]) -> Result<NotTaken> {
        Ok(realisations::add(self, offered))
    }

    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        let connection = self.connect()?;
        if self.options.no_check_signatures && connection.trusted == Trusted::No {
            // It would ignore the wish without a word, and refuse the first unsigned path.
            return Err(Error::NotTrustedByDaemon { daemon: Store::describe(self) });
        }
        let writer =
            writer::DaemonWriter::begin(self, connection, plan, self.options.no_check_signatures)?;
        Ok(Box::new(writer))
    }
}

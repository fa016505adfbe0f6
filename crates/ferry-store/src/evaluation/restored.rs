//! An evaluation that was laid out: where its files are, and what a command needs to find them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::description::Description;
use super::error::{EvaluationError, Result};
use super::name;
use super::stage::normal;

/// No description is longer, in bytes.
const MAX_DESCRIPTION: u64 = 16 << 20;

/// An evaluation that [`unpack`](super::unpack()) has laid out.
#[derive(Clone, Debug)]
pub struct Restored {
    directory: PathBuf,
    description: Description,
}

impl Restored {
    /// Looks at a directory.
    ///
    /// # Errors
    /// When no evaluation was laid out there.
    pub fn open(directory: &Path) -> Result<Self> {
        let bad = |reason: String| EvaluationError::NotAnEvaluation {
            directory: directory.to_owned(),
            reason,
        };
        let file = directory.join(name::DESCRIPTION);
        let unreadable = |error: io::Error| bad(format!("{}: {error}", name::DESCRIPTION));
        // Nothing else: reading from a device might never end.
        if !file.symlink_metadata().map_err(unreadable)?.is_file() {
            return Err(bad(format!("{} is not a file", name::DESCRIPTION)));
        }
        let mut text = Vec::new();
        let opened = File::open(&file).map_err(unreadable)?;
        opened.take(MAX_DESCRIPTION + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_DESCRIPTION {
            let limit = MAX_DESCRIPTION;
            return Err(bad(format!("{} has more than {limit} bytes", name::DESCRIPTION)));
        }
        let description = Description::parse(&text).map_err(bad)?;
        Ok(Self { directory: directory.to_owned(), description })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was evaluated, and how.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Where a file is here that was at this absolute path.
    #[must_use]
    pub fn at(&self, path: &Path) -> PathBuf {
        let path = normal(path);
        self.directory.join(name::FILES).join(path.strip_prefix("/").unwrap_or(&path))
    }

    /// The counterpart of the directory that the evaluation was run in; where nothing of it
    /// travelled, the directory that all files are below.
    #[must_use]
    pub fn working_directory(&self) -> PathBuf {
        let recorded = self.description.working_directory.as_deref().unwrap_or("/");
        let here = self.at(Path::new(recorded));
        if here.is_dir() { here } else { self.directory.join(name::FILES) }
    }

    /// The recorded command, with the files that it names where they are here.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        self.description.command.iter().map(|word| self.translated(word)).collect()
    }

    /// The variables that a command needs to find all of this and nothing else. `nix_config` is what
    /// `NIX_CONFIG` is already, which stays in front.
    #[must_use]
    pub fn environment(&self, nix_config: Option<&str>) -> Vec<(String, String)> {
        let recorded = &self.description.environment;
        let search = recorded.get("NIX_PATH").map(String::as_str).unwrap_or_default();
        let cache = self.directory.join(name::CACHE);
        let settings = format!("{}\n{}", nix_config.unwrap_or_default(), self.settings());
        // Of the others, those that only an expression reads: with some, whoever has made the
        // object could have anything run.
        let of_expressions = recorded.iter().filter(|(name, _)| name.starts_with("NIXPKGS_"));
        of_expressions
            .map(|(name, value)| (name.clone(), self.translated(value)))
            .chain([
                ("NIX_PATH".to_owned(), self.search_path(search)),
                ("XDG_CACHE_HOME".to_owned(), cache.to_string_lossy().into_owned()),
                ("NIX_CONFIG".to_owned(), settings.trim_start().to_owned()),
            ])
            .collect()
    }

    /// Nix's settings with which nothing reaches for a network, and nothing that is there is looked
    /// for again.
    fn settings(&self) -> String {
        let registry = self.directory.join(name::REGISTRY);
        // The longest time that Nix takes for a number of seconds.
        let forever = u32::MAX;
        format!(
            "extra-experimental-features = nix-command flakes\n\
             substituters =\n\
             builders =\n\
             connect-timeout = 1\n\
             download-attempts = 1\n\
             tarball-ttl = {forever}\n\
             flake-registry = {}\n",
            registry.display()
        )
    }

    /// `NIX_PATH` with the directories where they are here.
    fn search_path(&self, recorded: &str) -> String {
        let entries = search_path_entries(recorded);
        let entries: Vec<String> = entries.iter().map(|entry| self.translated(entry)).collect();
        entries.join(":")
    }

    /// A word of a command, or an entry of `NIX_PATH`: an absolute path in it, by itself or behind
    /// `=` or the scheme of a URL, becomes the path of its counterpart, if there is one.
    fn translated(&self, word: &str) -> String {
        let starts = std::iter::once(0).chain(word.match_indices(['=', ':']).map(|(at, _)| at + 1));
        for start in starts {
            let (before, rest) = word.split_at(start);
            let path = rest
                .strip_prefix("//")
                .map_or(rest, |path| if path.starts_with('/') { path } else { rest });
            let end = path.find(['#', '?', '^']).unwrap_or(path.len());
            let (path, behind) = path.split_at(end);
            if path.starts_with('/') && !path.starts_with("//") {
                let here = self.at(Path::new(path));
                if path != "/" && here.exists() {
                    let slashes = if rest.starts_with("///") { "//" } else { "" };
                    return format!("{before}{slashes}{}{behind}", here.display());
                }
            }
        }
        word.to_owned()
    }
}

/// The entries of a `NIX_PATH`: directories and URLs, with `NAME=` in front or without.
#[must_use]
pub fn search_path_entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for part in text.split(':') {
        // `nixpkgs=https://…` is one entry.
        match entries.last_mut() {
            Some(last) if part.starts_with("//") => {
                last.push(':');
                last.push_str(part);
            }
            _ => entries.push(part.to_owned()),
        }
    }
    entries
}

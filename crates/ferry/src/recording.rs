//! Recording evaluations: the evaluator's surroundings, its log, and where recordings are kept.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use ferry_formats::{StoreDir, StorePath};
use ferry_store::daemon::Address;
use ferry_store::evaluation::search_path_entries;
use ferry_store::facts::{Recorded, TraceHeader};
use ferry_store::installable::Installable;
use ferry_store::local::Layout;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose, StoreUri};
use ferry_trace::proxy::Upstream;
use ferry_trace::record::{
    Evaluation, RecordedEvaluation, Recording, Shown, Verbosity, Witness, without_colours,
};
use ferry_trace::watch::{Ended, Running, Watch};

use crate::context::Context;
use crate::evaluate::{self, Evaluator, Expression};
use crate::failure::Failure;
use crate::output::harmless;
use crate::{unfinished, watching};

/// What the recorder is called in its recordings.
const RECORDER: &str = concat!("ferry ", env!("CARGO_PKG_VERSION"));

/// A recording that was made.
pub(crate) struct Made {
    /// What the evaluation resulted in.
    pub(crate) installables: Vec<Installable>,
    pub(crate) recorded: Recorded,
    /// Where it was written.
    pub(crate) file: PathBuf,
}

/// Records evaluations for one store.
pub(crate) struct Recorder<'a> {
    context: &'a Context,
    output: Option<&'a Path>,
    store: OpenStore,
    upstream: Address,
    pub(crate) store_dir: StoreDir,
    /// Where the files of the store are, if that is known and not what its paths say.
    pub(crate) layout: Option<Layout>,
    /// What stands behind the `?` of the address that the evaluator is given.
    parameters: String,
}

impl<'a> Recorder<'a> {
    /// For the store at `address`; recordings go into `output`, or else where they are kept.
    pub(crate) fn new(
        context: &'a Context,
        address: &str,
        output: Option<&'a Path>,
    ) -> Result<Self, Failure> {
        let surroundings = &context.surroundings;
        let parsed = StoreUri::parse(address, Purpose::Write, surroundings)?;
        // Nothing is written to it.
        let store =
            context.open_store(address, Purpose::Read, TrustPolicy::accept_all(), false, &[])?;
        let given = address.split_once('?').map_or("", |(_, parameters)| parameters);
        Ok(match parsed {
            StoreUri::Daemon(upstream, store_dir) => {
                let local = format!("local?{given}");
                let layout = match StoreUri::parse(&local, Purpose::Read, surroundings) {
                    Ok(StoreUri::Local(layout)) if !given.is_empty() => Some(layout),
                    _ => None,
                };
                let parameters = given.to_owned();
                Self { context, output, store, upstream, store_dir, layout, parameters }
            }
            StoreUri::Local(layout) => {
                let parameters = parameters(&layout);
                let remote = match parameters.as_str() {
                    "" => "NIX_REMOTE=local".to_owned(),
                    parameters => format!("NIX_REMOTE=local?{parameters}"),
                };
                let words = ["env", &remote, "nix-daemon", "--stdio"];
                let upstream = Address::Command(words.map(str::to_owned).to_vec());
                let store_dir = layout.store_dir.clone();
                Self {
                    context,
                    output,
                    store,
                    upstream,
                    store_dir,
                    layout: Some(layout),
                    parameters,
                }
            }
        })
    }

    /// Evaluates an expression, and writes down what that took.
    pub(crate) fn record(&self, expression: &Expression<'_>) -> Result<Made, Failure> {
        let evaluator = Evaluator::new(expression, None);
        let program = evaluator.command.get_program().to_owned();
        let mut evaluation = self.evaluation(&program, shown_words(&evaluator.command));
        self.describe(expression, &mut evaluation);
        let recording = self.start()?;
        let watch = self.watch(&recording);
        let running = watch.start(
            &words(&evaluator.command),
            |_| {},
            |command| {
                self.surround(command, &recording).args(["-vv", "--log-format", "internal-json"]);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            },
        );
        let command = &evaluator.command;
        let running = running.map_err(|error| evaluate::not_started(command, &error))?;
        let (ended, stdout, witness) = self.listen(command, running)?;
        let printed = evaluate::printed(command, ended.status, stdout)?;
        if let Err(why) = &ended.seen {
            self.context.talk.say(format!(
                "which files are read is not seen ({why}): those are recorded that expressions name"
            ));
        }
        evaluation.seen = ended.seen.ok();
        let working_directory = &self.context.surroundings.working_directory;
        let installables = evaluator.understand(&printed, &self.store_dir, working_directory)?;
        let roots = installables.iter().map(|one| one.path().clone()).collect();
        evaluation.roots = Some(roots);
        evaluation.witness = Some(witness);
        let recorded = recording.finish(evaluation, self.store.store());
        let file = self.write(&recorded)?;
        Ok(Made { installables, recorded: recorded.recorded().clone(), file })
    }

    /// Runs a command as it is, and writes down what it evaluates.
    pub(crate) fn record_command(
        &self,
        words: &[OsString],
    ) -> Result<(ExitStatus, Result<Made, Failure>), Failure> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(Failure::usage("there is no command behind `--`"));
        };
        let is_store =
            |word: &&OsString| *word == "--store" || word.to_string_lossy().starts_with("--store=");
        if arguments.iter().any(|word| is_store(&word)) {
            return Err(Failure::usage(
                "the command names a store with --store, which is not recorded then",
            )
            .hint("name the store to ferry instead: ferry trace --store STORE -- COMMAND"));
        }
        let mut command = Command::new(program);
        command.args(arguments);
        let mut evaluation = self.evaluation(OsStr::new("nix"), shown_words(&command));
        let recording = self.start()?;
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot run `{}`: {error}", evaluate::shown(&command)))
        };
        let watch = self.watch(&recording);
        let running = watch.start(words, unfinished::leave_signals_to, |command| {
            self.surround(command, &recording);
        });
        let ended = running.and_then(Running::wait);
        unfinished::take_signals();
        let Ended { status, seen } = ended.map_err(failed)?;
        evaluation.search_path = self.search_path();
        let directory = &self.context.surroundings.working_directory;
        let files = arguments.iter().map(|word| expression_file(&directory.join(word)));
        evaluation.files = files.flatten().collect();
        if let Ok(seen) = &seen {
            evaluation.files.retain(|file| seen.read.contains(file));
        }
        match seen {
            Ok(seen) => evaluation.seen = Some(seen),
            Err(why) => evaluation.incomplete.push(format!(
                "which files the command read from the disk was not seen ({why}): those are listed \
                 that its expressions name"
            )),
        }
        if !status.success() {
            evaluation.incomplete.push(format!("the command failed ({status})"));
        }
        let recorded = recording.finish(evaluation, self.store.store());
        let made = self.write(&recorded).map(|file| Made {
            installables: recorded
                .recorded()
                .roots
                .iter()
                .cloned()
                .map(Installable::Path)
                .collect(),
            recorded: recorded.recorded().clone(),
            file,
        });
        Ok((status, made))
    }

    fn start(&self) -> Result<Recording, Failure> {
        let upstream = match &self.upstream {
            Address::Socket(socket) => Upstream::Socket(socket.clone()),
            Address::Command(words) => {
                let words = words.clone();
                Upstream::Command(Box::new(move || {
                    let mut words = words.iter();
                    let mut command = Command::new(words.next().map_or("", String::as_str));
                    command.args(words);
                    command
                }))
            }
        };
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let sockets: Vec<PathBuf> = [env::temp_dir()]
            .into_iter()
            .chain(runtime)
            .chain([PathBuf::from("/tmp")])
            .filter(|directory| directory.is_dir())
            .collect();
        let recording =
            Recording::start(upstream, &sockets, &traces_directory()?, self.store_dir.clone())
                .map_err(Failure::new)?;
        unfinished::begin(recording.cache_directory());
        if let Some(directory) = recording.socket().parent() {
            unfinished::begin(directory);
        }
        Ok(recording)
    }

    /// Lets a command talk to the recorder, and keep what it fetches apart.
    fn surround<'c>(&self, command: &'c mut Command, recording: &Recording) -> &'c mut Command {
        let mut remote = format!("unix://{}", recording.socket().display());
        if !self.parameters.is_empty() {
            remote = format!("{remote}?{}", self.parameters);
        }
        let mut config = env::var("NIX_CONFIG").unwrap_or_default();
        config.push_str("\neval-cache = false\n");
        command.env("NIX_REMOTE", remote).env("NIX_CONFIG", config);
        command.env("XDG_CACHE_HOME", recording.cache_directory());
        if env::var_os("NIX_CACHE_HOME").is_some() {
            command.env("NIX_CACHE_HOME", recording.cache_directory().join("nix"));
        }
        command
    }

    /// How what is recorded is watched.
    fn watch(&self, recording: &Recording) -> Watch {
        let directory = recording.socket().parent().unwrap_or(Path::new("/"));
        watching::watch(self, directory, recording.cache_directory())
    }

    /// Listens to an evaluator: shows of its log what a person would have seen, and keeps the rest.
    fn listen(
        &self,
        command: &Command,
        mut running: Running,
    ) -> Result<(Ended, Vec<u8>, Witness), Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot read what `{}` says: {error}", evaluate::shown(command)))
        };
        let stdout = running.stdout.take();
        let reader = thread::spawn(move || {
            let mut printed = Vec::new();
            stdout.map_or(Ok(0), |mut out| out.read_to_end(&mut printed)).map(|_| printed)
        });
        let mut witness = Witness::new();
        // Of Nix's commands, only the new ones keep to themselves what builders say.
        let build_logs = command.get_program() != "nix";
        let verbosity = Verbosity { more: u64::from(self.context.verbose), build_logs };
        if let Some(stderr) = running.stderr.take() {
            let mut lines = BufReader::new(stderr);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                if let Shown::Text(text) = witness.line(text, verbosity) {
                    tell(&text);
                }
                line.clear();
            }
        }
        let ended = running.wait().map_err(failed)?;
        let printed = match reader.join() {
            Ok(printed) => printed.map_err(failed)?,
            Err(_) => Vec::new(),
        };
        Ok((ended, printed, witness))
    }

    /// What is known before anything is run.
    fn evaluation(&self, program: &OsStr, words: Vec<String>) -> Evaluation {
        let mut environment = BTreeMap::new();
        if let Ok(path) = env::var("NIX_PATH") {
            environment.insert("NIX_PATH".to_owned(), path);
        }
        let working_directory = self.context.surroundings.working_directory.display().to_string();
        Evaluation {
            header: TraceHeader {
                evaluator: version_of(program),
                command: words,
                working_directory: Some(working_directory),
                environment,
                system: Some(format!("{}-{}", env::consts::ARCH, env::consts::OS)),
                recorder: Some(RECORDER.to_owned()),
                ..TraceHeader::default()
            },
            real_store_dir: self
                .layout
                .as_ref()
                .map(|layout| layout.real_store_dir.clone())
                .filter(|real| real != Path::new(self.store_dir.as_str())),
            temporary_directory: Some(env::temp_dir()),
            ..Evaluation::default()
        }
    }

    /// Notes what an expression names.
    fn describe(&self, expression: &Expression<'_>, evaluation: &mut Evaluation) {
        let working_directory = &self.context.surroundings.working_directory;
        match expression {
            Expression::File(file, _) => {
                evaluation.files.extend(expression_file(&working_directory.join(file)));
                if evaluation.files.is_empty() {
                    // `<nixpkgs>`, perhaps.
                    evaluation.expressions.push(file.display().to_string());
                }
            }
            Expression::Text(text, _) => evaluation.expressions.push((*text).to_owned()),
            Expression::Flake(reference) => {
                evaluation.is_pure = true;
                evaluation.flake = flake_directory(reference, working_directory);
            }
        }
        evaluation.search_path = self.search_path();
    }

    /// Where `<name>` is looked up: `NIX_PATH`, or what Nix takes in its place.
    fn search_path(&self) -> Vec<(String, PathBuf)> {
        let directory = &self.context.surroundings.working_directory;
        let text = env::var("NIX_PATH").unwrap_or_else(|_| {
            let home = env::home_dir().unwrap_or_default();
            let channels = "/nix/var/nix/profiles/per-user/root/channels";
            let own = home.join(".nix-defexpr/channels");
            format!("{}:nixpkgs={channels}/nixpkgs:{channels}", own.display())
        });
        let entries = search_path_entries(&text);
        let entries = entries.iter().filter(|entry| !entry.is_empty());
        let entries = entries.map(|entry| match entry.split_once('=') {
            Some((name, place)) => (name.to_owned(), directory.join(place)),
            None => (String::new(), directory.join(entry)),
        });
        entries.filter(|(_, place)| place.exists()).collect()
    }

    fn write(&self, recorded: &RecordedEvaluation) -> Result<PathBuf, Failure> {
        let file = match self.output {
            Some(file) => self.context.surroundings.working_directory.join(file),
            None => {
                let root = recorded.recorded().roots.first();
                traces_directory()?.join(file_name(root))
            }
        };
        recorded.require_better(&file).map_err(|error| {
            Failure::new(error).hint("name another place with --output, or remove that recording")
        })?;
        recorded.write(&file).map_err(Failure::new)?;
        if self.output.is_none() {
            for root in recorded.recorded().roots.iter().skip(1) {
                ferry_store::facts::link_trace(&file, &file_name(Some(root)))
                    .map_err(Failure::new)?;
            }
        }
        Ok(file)
    }
}

/// What the recording of a root is called.
fn file_name(root: Option<&StorePath>) -> String {
    root.map_or_else(|| "evaluation.trace".to_owned(), ferry_store::facts::trace_name)
}

/// Where recordings are kept.
pub(crate) fn traces_directory() -> Result<PathBuf, Failure> {
    Ok(Context::user_state_directory()?.join("traces"))
}

#[allow(clippy::print_stderr)]
fn tell(text: &str) {
    let plain = without_colours(text);
    // Colours are Nix's own; whatever else a terminal would obey is not.
    let has_only_colours = !plain.chars().any(|one| one.is_control() && !"\n\t".contains(one));
    if std::io::stderr().is_terminal() && has_only_colours {
        eprintln!("{text}");
    } else {
        eprintln!("{}", harmless(&plain));
    }
}

fn shown_words(command: &Command) -> Vec<String> {
    words(command).iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn words(command: &Command) -> Vec<OsString> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_owned).collect()
}

/// The first line of what a program says when it is asked for its version.
fn version_of(program: &OsStr) -> Option<String> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

/// The file that Nix evaluates where a file or directory is named, if it is one.
fn expression_file(path: &Path) -> Option<PathBuf> {
    let file = if path.is_dir() { path.join("default.nix") } else { path.to_owned() };
    let is_expression = file.extension().is_some_and(|end| end == "nix") || !path.is_dir();
    (is_expression && file.is_file()).then_some(file)
}

/// The directory of a flake that is on this disk: its repository, if it is in one.
fn flake_directory(reference: &str, working_directory: &Path) -> Option<PathBuf> {
    let place = reference.split(['#', '?']).next().unwrap_or_default();
    let plain = place.strip_prefix("path:").or_else(|| place.strip_prefix("git+file://"));
    let is_path = place.is_empty() || place.starts_with(['.', '/']);
    let directory = working_directory.join(plain.or(is_path.then_some(place))?);
    let directory = std::fs::canonicalize(directory).ok()?;
    let top = directory.ancestors().find(|one| one.join("flake.nix").exists())?;
    if place.starts_with("path:") {
        return Some(top.to_owned());
    }
    let repository = top.ancestors().find(|one| one.join(".git").exists());
    Some(repository.unwrap_or(top).to_owned())
}

/// The parameters of an address that name a store on disk.
fn parameters(layout: &Layout) -> String {
    let usual = Layout::below(layout.root.clone(), layout.store_dir.clone());
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if let Some(root) = &layout.root {
        pairs.push(("root", root.display().to_string()));
    }
    if layout.store_dir != StoreDir::default() {
        pairs.push(("store", layout.store_dir.to_string()));
    }
    if layout.state_dir != usual.state_dir {
        pairs.push(("state", layout.state_dir.display().to_string()));
    }
    if layout.real_store_dir != usual.real_store_dir {
        pairs.push(("real", layout.real_store_dir.display().to_string()));
    }
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

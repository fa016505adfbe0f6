//! What some caches have of what is needed, and what becomes of the rest.
//!
//! A [`Realiser`] decides what is needed and has to be asked about; here it is asked. Every cache
//! has a queue of its own and as many threads as it may have connections, so that its answers are
//! waited for together, and what an answer leads to is asked about at once, not when all others
//! of its kind have come. A path is asked about in the first place, and in the next one only if
//! the first does not have it or cannot be used for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ferry_formats::narinfo::{self, Narinfo};
use ferry_formats::{PathInfo, StorePath};
use ferry_graph::{Explorer, NodeId, NodeSet, Realisation, Realiser};
use ferry_store::progress::Progress;
use ferry_store::trust::TrustPolicy;
use ferry_store::{Error, Result, Store};

use crate::{BinaryCache, CacheError};

/// How many answers may wait to be taken in, each of which lists references.
const ANSWERS: usize = 256;

/// Something that may have what is needed.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// A cache: several paths are asked about at a time.
    Cache(&'a BinaryCache),
    /// Any other store, which is asked about many paths at once.
    Store(&'a dyn Store),
}

/// How to ask.
#[derive(Clone, Copy)]
pub struct AskOptions<'a> {
    /// Which signatures count: what is not signed so is there, and cannot be used.
    pub trust: &'a TrustPolicy,
    /// Whether to keep all that was answered of what is there, to copy it.
    pub keep_infos: bool,
    /// What somebody else asks for, with all that it refers to: that something here refers to it is
    /// no reason to ask for it as well.
    pub elsewhere: &'a NodeSet,
}

/// What a place says of a path that it has.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Which place, by number.
    pub place: usize,
    /// Size of its NAR, in bytes.
    pub nar_size: u64,
    /// Size of the file that would be fetched, in bytes; caches need not say it.
    pub file_size: Option<u64>,
    /// All of it, if it was to be kept.
    pub info: Option<Box<PathInfo>>,
}

/// Why something that is there cannot be used.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// Where it is, by number.
    pub place: usize,
    /// Whether it is only that no key has signed it that is trusted.
    pub is_untrusted: bool,
    /// What is wrong with it.
    pub reason: String,
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Survey {
    /// What is needed, and where it comes from.
    pub realisation: Realisation,
    /// What the places have of it.
    pub offers: HashMap<NodeId, Offer>,
    /// What they have of it that cannot be used.
    pub unusable: BTreeMap<NodeId, Vec<Unusable>>,
    /// How many paths each place was asked about.
    pub requests: Vec<u64>,
}

impl<'a> Place<'a> {
    /// As a store that can be copied from.
    #[must_use]
    pub fn store(self) -> &'a dyn Store {
        match self {
            Self::Cache(cache) => cache,
            Self::Store(store) => store,
        }
    }
}

/// Asks `places`, in their order, for what `realiser` wants, until nothing is left to ask. What
/// is needed besides, `explorer` knows from derivations; what these places have is not taken from
/// there.
///
/// # Errors
/// When a place could not be asked, or a source of facts not look. A narinfo that is none, or
/// that no client could use, is not there.
pub fn survey(
    explorer: &mut Explorer<'_>,
    realiser: Realiser,
    places: &[Place<'_>],
    options: AskOptions<'_>,
    progress: &dyn Progress,
) -> Result<Survey> {
    for place in places {
        if let Place::Cache(cache) = place {
            cache.check()?;
        }
    }
    progress.begin("asking", 0, 0);
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let (sender, answers) = bounded(ANSWERS);
        let queues = places
            .iter()
            .map(|place| match place {
                Place::Cache(cache) => spawn(scope, cache, options.trust, &sender, &stop).map(Some),
                Place::Store(_) => Ok(None),
            })
            .collect::<Result<Vec<_>>>();
        drop(sender);
        let outcome = queues.and_then(|queues| {
            let asker = Asker {
                realiser,
                places,
                queues,
                answers,
                options,
                waiting: vec![Vec::new(); places.len()],
                under_way: 0,
                survey: Survey { requests: vec![0; places.len()], ..Survey::default() },
            };
            asker.ask_all(explorer, progress)
        });
        // What was not asked yet need not be.
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    progress.end();
    outcome
}

/// A path that is asked about.
#[derive(Clone)]
struct Question {
    node: NodeId,
    path: StorePath,
    /// The place that is asked, by number.
    place: usize,
}

/// What a cache says of a path.
enum Answer {
    Absent,
    There { info: Box<PathInfo>, file_size: Option<u64> },
    Unusable { is_untrusted: bool, reason: String },
}

type Answered = (Question, std::result::Result<Answer, CacheError>);

/// Begins the threads that ask one cache, and returns their queue.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    cache: &'scope BinaryCache,
    trust: &'scope TrustPolicy,
    answers: &Sender<Answered>,
    stop: &'scope AtomicBool,
) -> Result<Sender<Question>> {
    let (queue, jobs) = unbounded::<Question>();
    for number in 0..cache.place.connections() {
        let (jobs, answers) = (jobs.clone(), answers.clone());
        let work = move || {
            for question in jobs {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let answer = ask(cache, &question.path, trust);
                // Nobody listens any more once something has failed.
                let _ = answers.send((question, answer));
            }
        };
        match thread::Builder::new().spawn_scoped(scope, work) {
            Ok(_) => {}
            // Where not all threads can be had, the others do their part.
            Err(_) if number > 0 => break,
            Err(source) => return Err(Error::io("begin a thread")(source)),
        }
    }
    Ok(queue)
}

/// Asks a cache about a path.
fn ask(
    cache: &BinaryCache,
    path: &StorePath,
    trust: &TrustPolicy,
) -> std::result::Result<Answer, CacheError> {
    let name = narinfo::file_name(path);
    let Some(text) = cache.place.get(&name)? else { return Ok(Answer::Absent) };
    let parsed = cache.parse(path, &name, &text).and_then(|narinfo| {
        cache.note(&narinfo)?;
        Ok(narinfo)
    });
    match parsed {
        Ok(narinfo) => Ok(match trust.check(cache.store_dir(), &narinfo.info) {
            Ok(()) => {
                let Narinfo { info, file_size, .. } = narinfo;
                let file_size = file_size.filter(|size| *size > 0);
                Answer::There { info: Box::new(info), file_size }
            }
            Err(error) => Answer::Unusable { is_untrusted: true, reason: error.to_string() },
        }),
        Err(error @ (CacheError::Http(_) | CacheError::Io { .. })) => Err(error),
        Err(error) => Ok(Answer::Unusable { is_untrusted: false, reason: error.to_string() }),
    }
}

/// Asks until nothing is left to ask.
struct Asker<'p, 'a> {
    realiser: Realiser,
    places: &'p [Place<'a>],
    /// Of each place that is a cache.
    queues: Vec<Option<Sender<Question>>>,
    answers: Receiver<Answered>,
    options: AskOptions<'p>,
    /// What is to be asked of each of the other places.
    waiting: Vec<Vec<Question>>,
    /// Questions that a cache has not answered yet.
    under_way: usize,
    survey: Survey,
}

impl Asker<'_, '_> {
    fn ask_all(mut self, explorer: &mut Explorer<'_>, progress: &dyn Progress) -> Result<Survey> {
        loop {
            let questions = self.realiser.questions(explorer)?;
            progress.more(questions.len() as u64);
            for node in questions {
                // Only what has a path is asked about.
                let Some(path) = explorer.graph().path(node) else { continue };
                self.ask(Question { node, path, place: 0 }, progress);
            }
            if self.ask_stores(explorer, progress)? {
                continue;
            }
            if self.under_way == 0 {
                break;
            }
            // Several at once, where they have come: derivations are read together then.
            let ended = || Error::io("ask a cache")(std::io::Error::other("its threads ended"));
            let first = self.answers.recv().map_err(|_| ended())?;
            let more: Vec<Answered> = self.answers.try_iter().collect();
            for (question, answer) in std::iter::once(first).chain(more) {
                self.under_way -= 1;
                self.take(question, answer?, explorer, progress);
            }
        }
        self.survey.realisation = self.realiser.finish(explorer);
        Ok(self.survey)
    }

    /// Passes a question on to its place; behind the last one there is no more to ask.
    fn ask(&mut self, question: Question, progress: &dyn Progress) {
        let place = question.place;
        if let Some(requests) = self.survey.requests.get_mut(place) {
            *requests += 1;
        }
        match (self.queues.get(place), self.waiting.get_mut(place)) {
            (Some(Some(queue)), _) => {
                self.under_way += 1;
                // It is received for as long as there are threads; that there are none any more
                // is noticed where answers are waited for.
                let _ = queue.send(question);
            }
            (_, Some(waiting)) => waiting.push(question),
            _ => {
                progress.path(&question.path);
                self.realiser.answer(question.node, None);
            }
        }
    }

    /// Asks the stores that are no caches; false if there was nothing to ask them.
    fn ask_stores(&mut self, explorer: &mut Explorer<'_>, progress: &dyn Progress) -> Result<bool> {
        let mut asked = false;
        for (number, place) in self.places.iter().enumerate() {
            let Place::Store(store) = place else { continue };
            let questions = self.waiting.get_mut(number).map(std::mem::take).unwrap_or_default();
            if questions.is_empty() {
                continue;
            }
            asked = true;
            let paths: Vec<StorePath> =
                questions.iter().map(|question| question.path.clone()).collect();
            for (question, info) in questions.into_iter().zip(store.path_infos(&paths)?) {
                let checked = info
                    .map(|info| self.options.trust.check(store.store_dir(), &info).map(|()| info));
                let answer = match checked {
                    None => Answer::Absent,
                    Some(Ok(info)) => Answer::There { info: Box::new(info), file_size: None },
                    Some(Err(error)) => {
                        Answer::Unusable { is_untrusted: true, reason: error.to_string() }
                    }
                };
                self.take(question, answer, explorer, progress);
            }
        }
        Ok(asked)
    }

    fn take(
        &mut self,
        question: Question,
        answer: Answer,
        explorer: &mut Explorer<'_>,
        progress: &dyn Progress,
    ) {
        let Question { node, place, .. } = question;
        match answer {
            Answer::There { info, file_size } => {
                progress.path(&question.path);
                let references = info.references.iter().map(|path| explorer.node(path));
                let is_open = |reference: &NodeId| !self.options.elsewhere.contains(*reference);
                self.realiser.answer(node, Some(references.filter(is_open).collect()));
                let nar_size = info.nar_size;
                let info = self.options.keep_infos.then_some(info);
                self.survey.offers.insert(node, Offer { place, nar_size, file_size, info });
                return;
            }
            Answer::Unusable { is_untrusted, reason } => {
                let unusable = Unusable { place, is_untrusted, reason };
                self.survey.unusable.entry(node).or_default().push(unusable);
            }
            Answer::Absent => {}
        }
        self.ask(Question { place: place + 1, ..question }, progress);
    }
}

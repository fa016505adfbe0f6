//! What can be wrong with a query, shown where it stands.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::Source;
use crate::facts::FactsError;

/// Something wrong with a query, or found while it was evaluated, and its place in the text.
#[derive(Debug)]
pub struct QueryError {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    fault: Fault,
    /// The text that `fault.span` is in.
    source: Source,
    /// The text that `fault.also` is in.
    other: Source,
    cause: Option<FactsError>,
}

/// Something wrong, before it is known in which text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) span: Range<usize>,
    pub(super) help: Option<String>,
    /// Another place that it has to do with.
    pub(super) also: Option<Box<Also>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Also {
    /// The number of the text; `None` for the text that the fault itself is in.
    pub(super) source: Option<usize>,
    pub(super) span: Range<usize>,
    pub(super) label: String,
}

impl Fault {
    pub(super) fn new(span: &Range<usize>, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: span.clone(), help: None, also: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds help where there is some.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    pub(super) fn also(
        mut self,
        source: Option<usize>,
        span: &Range<usize>,
        label: impl Into<String>,
    ) -> Self {
        self.also = Some(Box::new(Also { source, span: span.clone(), label: label.into() }));
        self
    }

    /// Puts it into one of the texts of a query.
    pub(super) fn within(mut self, sources: &[Source], number: usize) -> QueryError {
        // A word, or what others say, may hold what a terminal would obey.
        self.message = harmless(&self.message);
        self.help = self.help.as_deref().map(harmless);
        let text = |number: usize| sources.get(number).cloned().unwrap_or_default();
        let elsewhere = self.also.as_ref().and_then(|also| also.source);
        let (source, other) = (text(number), text(elsewhere.unwrap_or(number)));
        QueryError { inner: Box::new(Inner { fault: self, source, other, cause: None }) }
    }
}

impl QueryError {
    /// What is wrong, in a few words.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.fault.message
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.inner.fault.help.as_deref()
    }

    /// The name of the text that it is in: a file's, or what [`Source::new`] was given.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.inner.source.name()
    }

    /// Where in that text, in bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.inner.fault.span.clone()
    }

    /// Puts it elsewhere if it is in the text with the number `from`.
    pub(super) fn taken_out_of(
        mut self,
        from: usize,
        sources: &[Source],
        number: usize,
        span: &Range<usize>,
    ) -> Self {
        if let (Some(from), Some(source)) = (sources.get(from), sources.get(number))
            && *from == self.inner.source
        {
            self.inner.source = source.clone();
            self.inner.fault.span = span.clone();
        }
        self
    }

    /// What it comes from, if a part of the graph or of the world outside could not answer.
    pub(super) fn caused_by(mut self, cause: FactsError) -> Self {
        self.inner.cause = Some(cause);
        self
    }

    /// The message, the line that it is about with a mark below the place, and the help. Several
    /// lines of plain text with no newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        let Inner { fault, source, other, .. } = &*self.inner;
        let primary = AnnotationKind::Primary.span(clamp(source.text(), &fault.span));
        let mut snippet = Snippet::source(source.text()).path(source.name()).annotation(primary);
        let mut elsewhere = None;
        if let Some(also) = &fault.also {
            let context = AnnotationKind::Context.span(clamp(other.text(), &also.span));
            let context = context.label(also.label.as_str());
            if also.source.is_none() || other == source {
                snippet = snippet.annotation(context);
            } else {
                elsewhere =
                    Some(Snippet::source(other.text()).path(other.name()).annotation(context));
            }
        }
        let level = Level::ERROR.no_name();
        let mut group = Group::with_title(level.primary_title(fault.message.as_str()));
        group = group.element(snippet).elements(elsewhere);
        if let Some(help) = &fault.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        Renderer::plain().render(&[group])
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { fault, source, .. } = &*self.inner;
        let (line, column) = position(source.text(), fault.span.start);
        write!(formatter, "{}:{line}:{column}: {}", source.name(), fault.message)
    }
}

impl std::error::Error for QueryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.cause.as_deref().map(|cause| cause as _)
    }
}

fn harmless(text: &str) -> String {
    let plain = |it: char| it == '\n' || !it.is_control();
    text.chars().map(|it| if plain(it) { it } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Line and column, both counted from one, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The span, or the end of the text if there is no such span in it.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    match text.get(span.clone()) {
        Some(_) => span.clone(),
        None => text.len()..text.len(),
    }
}

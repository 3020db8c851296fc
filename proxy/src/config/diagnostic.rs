//! What is wrong with a configuration: file, line, column, the text underlined, and a fix.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A configuration text and where it comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it.
    pub name: Arc<str>,
    /// Its text.
    pub text: String,
    /// What relative paths in it are relative to.
    pub dir: PathBuf,
}

impl Source {
    /// Line of an octet offset, from 1.
    pub fn line(&self, offset: usize) -> u32 {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        u32::try_from(before.iter().filter(|octet| **octet == b'\n').count() + 1).unwrap_or(u32::MAX)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, but probably does not say what was meant.
    Warning,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    span: Range<usize>,
    label: String,
    related: Option<(Range<usize>, String)>,
    fix: Option<String>,
}

impl Diagnostic {
    /// An error at a place, with what to do about it.
    pub fn error(span: Range<usize>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        let (message, fix) = (message.into(), Some(fix.into()));
        Self { severity: Severity::Error, message, span, label: String::new(), related: None, fix }
    }

    /// A warning at a place.
    pub fn warning(span: Range<usize>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message, fix) }
    }

    /// Words under the underlined text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A second place that belongs to it.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    fn group<'d>(&'d self, source: &'d Source) -> Group<'d> {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let primary = AnnotationKind::Primary.span(self.span.clone());
        let primary = if self.label.is_empty() { primary } else { primary.label(self.label.as_str()) };
        let mut snippet = Snippet::source(source.text.as_str()).path(&*source.name).annotation(primary);
        if let Some((span, label)) = &self.related {
            snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label.as_str()));
        }
        let group = level.primary_title(self.message.as_str()).element(snippet);
        match &self.fix {
            Some(fix) => group.element(Level::HELP.message(fix.as_str())),
            None => group,
        }
    }
}

/// All of them, ready to print.
pub fn render(diagnostics: &[Diagnostic], source: &Source, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[diagnostic.group(source)]));
        text.push_str("\n\n");
    }
    text
}

/// The closest of several words, when one is close enough to be what was meant.
pub fn did_you_mean<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let limit = (word.chars().count() / 3).max(1);
    let scored = words.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

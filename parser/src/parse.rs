//! The two ways in: a whole Dockerfile, and a trigger that a base image brings.

use crate::ast::{Keyword, Node, Tree};
use crate::convert::{Converted, Converter, nearest, origin};
use crate::directive::{self, Directives, is_built_in};
use crate::instruction::{Instruction, Origin};
use crate::lint::{self, Config};
use crate::stage::{Dockerfile, Stage};
use crate::word::{Escape, Word};
use crate::{Diagnostic, Parsed, Source, Span};

/// What a caller decides instead of the directives of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The build checks (BuildKit's `BUILDKIT_DOCKERFILE_CHECK`).
    pub checks: Option<Config>,
    /// The frontend and its options (BuildKit's `BUILDKIT_SYNTAX`).
    pub frontend: Option<String>,
}

/// Parses a Dockerfile.
pub fn parse(source: &Source) -> Parsed<Dockerfile> {
    parse_with(source, Overrides::default())
}

/// Parses a Dockerfile of which some directives do not count.
pub fn parse_with(source: &Source, overrides: Overrides) -> Parsed<Dockerfile> {
    let text = source.text();
    if text.is_empty() {
        let help = "a Dockerfile starts with FROM, for example `FROM scratch`";
        let error = Diagnostic::file_error("the Dockerfile cannot be empty").with_help(help);
        return Parsed { value: Dockerfile::default(), diagnostics: vec![error] };
    }
    let mut errors = Vec::new();
    let directives = directive::find(text);
    let checks = overrides.checks.unwrap_or_else(|| read_checks(&directives, &mut errors));
    errors.extend(refused_frontend(&directives, overrides.frontend.as_deref()));

    let mut tree = Tree::new(text, None);
    let mut converter = Converter::new(text, Escape::default());
    let mut assembly = Assembly::default();
    let mut later = Vec::new();
    while let Some(mut node) = tree.next() {
        converter.escape = tree.escape();
        if let Some(last_line) = node.blank_inside {
            converter.lints.push((lint::no_empty_continuation::finding(last_line), None));
        }
        let (converted, faults) = converter.convert(&mut node);
        later.extend(faults);
        match converted {
            Some(converted) => later.extend(assembly.add(converted)),
            None => assembly.skip(&mut node),
        }
    }
    // BuildKit reads the whole file's syntax before it looks at any instruction.
    let escape = tree.escape();
    errors.append(&mut tree.faults);
    errors.append(&mut later);
    if !assembly.has_from && errors.is_empty() {
        let help = "add a FROM, for example `FROM scratch`";
        errors.push(Diagnostic::file_error("dockerfile contains no stages to build").with_help(help));
    }
    let directives = Directives { escape, ..directives };
    let file = Dockerfile { directives, checks, ..assembly.file };
    let mut diagnostics = errors;
    diagnostics.extend(findings(&file, converter.lints));
    Parsed { value: file, diagnostics }
}

/// Parses an `ONBUILD` trigger as an image config keeps it. `escape` is that of the Dockerfile in which it takes effect, where its
/// words are expanded; its own syntax has the default one. Everything in the result is placed `at` (the stage's `FROM`).
pub fn parse_trigger(trigger: &str, escape: Escape, at: Span) -> Parsed<Option<Instruction>> {
    let failed = |diagnostics| Parsed { value: None, diagnostics };
    let mut tree = Tree::new(trigger, Some(at));
    let (first, second) = (tree.next(), tree.next());
    while tree.next().is_some() {}
    if !tree.faults.is_empty() {
        return failed(tree.faults);
    }
    let (Some(mut node), None) = (first, second) else {
        return failed(vec![Diagnostic::error(at, "onbuild trigger should be a single expression")]);
    };
    match Converter::new("", escape).convert(&mut node) {
        (_, faults) if !faults.is_empty() => failed(faults),
        (Some(Converted::Instruction(instruction)), _) => Parsed { value: Some(instruction), diagnostics: Vec::new() },
        _ => failed(vec![Diagnostic::error(at, "FROM isn't allowed as an ONBUILD trigger")]),
    }
}

fn read_checks(directives: &Directives, errors: &mut Vec<Diagnostic>) -> Config {
    let Some(check) = &directives.check else { return Config::default() };
    Config::parse(&check.value).unwrap_or_else(|error| {
        errors.push(Diagnostic::error(check.span, format!("failed to parse check options: {error}")));
        Config::default()
    })
}

/// Only the built-in frontend can be had; one that the caller names goes before that of the file.
fn refused_frontend(directives: &Directives, given: Option<&str>) -> Option<Diagnostic> {
    let message = |frontend: &str| format!("the frontend {frontend} is not supported");
    if let Some(given) = given {
        let frontend = given.split_whitespace().next().unwrap_or("\"\"");
        let help = "docker/dockerfile is built in; leave the build argument BUILDKIT_SYNTAX out";
        return (!is_built_in(frontend)).then(|| Diagnostic::file_error(message(frontend)).with_help(help));
    }
    let syntax = directives.syntax.as_ref().filter(|syntax| !is_built_in(&syntax.value))?;
    let help = "docker/dockerfile is built in; remove the directive if the file is an ordinary Dockerfile";
    Some(Diagnostic::error(syntax.span, message(&syntax.value)).with_help(help))
}

/// Puts instructions into stages.
#[derive(Default)]
struct Assembly {
    file: Dockerfile,
    has_from: bool,
    complained: bool,
}

impl Assembly {
    fn add(&mut self, converted: Converted) -> Option<Diagnostic> {
        match converted {
            Converted::Stage(stage) => {
                self.has_from = true;
                self.file.stages.push(*stage);
            }
            Converted::Instruction(Instruction::Arg(arg)) if !self.has_from => self.file.global_args.push(arg),
            Converted::Instruction(instruction) => match self.file.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if !std::mem::replace(&mut self.complained, true) => {
                    let error = Diagnostic::error(instruction.origin().head, "no build stage in current context");
                    return Some(error.with_help("only ARG may stand before the first FROM"));
                }
                None => {}
            },
        }
        None
    }

    /// Takes note of an instruction that could not be read. A `FROM`, even a misspelt one, still starts a stage, so that what
    /// follows finds its place; that stage's image is empty.
    fn skip(&mut self, node: &mut Node) {
        let misspelt = || nearest(&node.word.text).is_some_and(|name| name.eq_ignore_ascii_case("from"));
        if !(node.keyword == Some(Keyword::From) || (node.keyword.is_none() && misspelt())) {
            return;
        }
        self.has_from = true;
        self.file.stages.push(Stage {
            origin: origin(node),
            image: Word::new("", node.head, Escape::default()),
            platform: None,
            name: None,
            name_as_written: None,
            description: None,
            instructions: Vec::new(),
        });
    }
}

/// The findings of build checks that need only the text, in its order.
fn findings(file: &Dockerfile, mut found: Vec<(Diagnostic, Option<Box<Config>>)>) -> Vec<Diagnostic> {
    let own = |(diagnostic, origin): (Diagnostic, &Origin)| (diagnostic, origin.checks.clone());
    for stage in &file.stages {
        found.extend(lint::reserved_stage_name::check(stage).map(|it| (it, stage.origin.checks.clone())));
    }
    found.extend(lint::duplicate_stage_name::check(&file.stages).into_iter().map(own));
    found.extend(lint::consistent_instruction_casing::check(&file.stages).into_iter().map(own));
    found.sort_by_key(|(diagnostic, _)| diagnostic.span);
    let wanted = found.into_iter().filter(|(diagnostic, nearby)| file.checks.wants(diagnostic, nearby.as_deref()));
    wanted.map(|(diagnostic, _)| diagnostic).collect()
}

//! The two ways in: a whole Dockerfile, and a trigger that a base image brings.

use crate::ast::{Keyword, Node, Tree};
use crate::convert::{Converted, Converter, origin};
use crate::directive::{self, Directives, is_built_in};
use crate::instruction::{Instruction, Origin};
use crate::lint::{self, Config};
use crate::stage::{Dockerfile, Stage};
use crate::word::{Escape, Word};
use crate::{Diagnostic, Parsed, Source, Span};

/// Parses a Dockerfile.
pub fn parse(source: &Source) -> Parsed<Dockerfile> {
    read(source, None)
}

/// Parses a Dockerfile with build checks as given, whatever its `# check=` says (BuildKit's `BUILDKIT_DOCKERFILE_CHECK`).
pub fn parse_with_checks(source: &Source, checks: Config) -> Parsed<Dockerfile> {
    read(source, Some(checks))
}

fn read(source: &Source, checks: Option<Config>) -> Parsed<Dockerfile> {
    let text = source.text();
    if text.is_empty() {
        let help = "a Dockerfile starts with FROM, for example `FROM scratch`";
        let error = Diagnostic::file_error("the Dockerfile cannot be empty").with_help(help);
        return Parsed { value: Dockerfile::default(), diagnostics: vec![error] };
    }
    let mut errors = Vec::new();
    let directives = directive::find(text);
    let checks = checks.unwrap_or_else(|| read_checks(&directives, &mut errors));
    check_frontend(&directives, &mut errors);

    let mut tree = Tree::new(text, None);
    let mut converter = Converter { text, escape: Escape::default(), lints: Vec::new() };
    let mut assembly = Assembly::default();
    let mut later = Vec::new();
    while let Some(mut node) = tree.next() {
        converter.escape = tree.escape();
        if let Some(last_line) = node.blank_inside {
            converter.lints.push((lint::no_empty_continuation::finding(last_line), None));
        }
        match converter.convert(&mut node) {
            Ok(converted) => later.extend(assembly.add(converted)),
            Err(error) => {
                assembly.skip(&mut node);
                later.push(error);
            }
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
    let mut converter = Converter { text: "", escape, lints: Vec::new() };
    match converter.convert(&mut node) {
        Err(error) => failed(vec![error]),
        Ok(Converted::Stage(_)) => failed(vec![Diagnostic::error(at, "FROM isn't allowed as an ONBUILD trigger")]),
        Ok(Converted::Instruction(instruction)) => Parsed { value: Some(instruction), diagnostics: Vec::new() },
    }
}

fn read_checks(directives: &Directives, errors: &mut Vec<Diagnostic>) -> Config {
    let Some(check) = &directives.check else { return Config::default() };
    Config::parse(&check.value).unwrap_or_else(|error| {
        errors.push(Diagnostic::error(check.span, format!("failed to parse check options: {error}")));
        Config::default()
    })
}

fn check_frontend(directives: &Directives, errors: &mut Vec<Diagnostic>) {
    if let Some(syntax) = directives.syntax.as_ref().filter(|syntax| !is_built_in(&syntax.value)) {
        let message = format!("the frontend {} is not supported", syntax.value);
        let help = "docker/dockerfile is built in; remove the directive if the file is an ordinary Dockerfile";
        errors.push(Diagnostic::error(syntax.span, message).with_help(help));
    }
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

    /// Takes note of an instruction that could not be read. A `FROM` still starts a stage, so that what follows finds its place.
    fn skip(&mut self, node: &mut Node) {
        if node.keyword != Some(Keyword::From) {
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

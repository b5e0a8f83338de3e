//! A Dockerfile as short readable text, for snapshots: every instruction with its place, every word as written.

use std::fmt::Write;

use rbuild_parser::instruction::{CommandLine, HealthcheckKind, InlineFile, Pair, PairForm, SourcesAndDest, Text};
use rbuild_parser::{Diagnostic, Dockerfile, Heredoc, Instruction, Parsed, Source, Span, Stage, Word};

/// The whole file and what was found.
pub(crate) fn dump(source: &Source, parsed: &Parsed<Dockerfile>) -> String {
    let file = &parsed.value;
    let mut out = String::new();
    for (name, directive) in [("syntax", &file.directives.syntax), ("check", &file.directives.check)] {
        if let Some(directive) = directive {
            writeln!(out, "{name}={} @{}", directive.value, place(source, directive.span)).unwrap();
        }
    }
    if file.escape().char() != '\\' {
        writeln!(out, "escape={}", file.escape().char()).unwrap();
    }
    for arg in &file.global_args {
        instruction(&mut out, source, "", &Instruction::Arg(arg.clone()));
    }
    for item in &file.stages {
        stage(&mut out, source, item);
    }
    for diagnostic in &parsed.diagnostics {
        finding(&mut out, source, diagnostic);
    }
    out
}

fn place(source: &Source, span: Span) -> String {
    let (start, end) = (source.position(span.start()), source.position(span.end()));
    format!("{}:{}-{}:{}", start.line, start.column, end.line, end.column)
}

fn finding(out: &mut String, source: &Source, diagnostic: &Diagnostic) {
    let rule = diagnostic.rule.map_or(String::new(), |rule| format!(" {}", rule.name));
    let at = diagnostic.span.map_or(String::new(), |span| format!(" @{}", place(source, span)));
    writeln!(out, "{:?}{rule}{at}: {}", diagnostic.severity, diagnostic.message).unwrap();
    for label in &diagnostic.labels {
        writeln!(out, "  label @{}: {}", place(source, label.span), label.text).unwrap();
    }
    if let Some(help) = &diagnostic.help {
        writeln!(out, "  help: {help}").unwrap();
    }
}

fn stage(out: &mut String, source: &Source, stage: &Stage) {
    write!(out, "{} {} {:?}", place(source, stage.origin.span), stage.origin.keyword, stage.image.raw()).unwrap();
    if let Some(platform) = &stage.platform {
        write!(out, " platform={:?}", platform.raw()).unwrap();
    }
    if let Some(name) = &stage.name {
        write!(out, " as {name}").unwrap();
    }
    if let Some(description) = &stage.description {
        write!(out, " # {description}").unwrap();
    }
    out.push('\n');
    for item in &stage.instructions {
        instruction(out, source, "  ", item);
    }
}

fn instruction(out: &mut String, source: &Source, indent: &str, instruction: &Instruction) {
    let body = body(instruction);
    writeln!(out, "{indent}{} {}{body}", place(source, instruction.span()), instruction.origin().keyword).unwrap();
}

fn body(instruction: &Instruction) -> String {
    match instruction {
        Instruction::Arg(arg) => {
            let one = |arg: &rbuild_parser::instruction::ArgDeclaration| {
                let value = arg.value.as_ref().map_or(String::new(), |value| format!("={:?}", value.raw()));
                let description = arg.description.as_ref().map_or(String::new(), |text| format!(" # {text}"));
                format!(" {}{value}{description}", arg.name.value)
            };
            arg.args.iter().map(one).collect()
        }
        Instruction::Env(env) => pairs(&env.pairs),
        Instruction::Label(label) => pairs(&label.pairs),
        Instruction::Maintainer(author) => format!(" {:?}", author.name.value),
        Instruction::Run(run) => {
            let mut text = String::new();
            for mount in &run.mounts {
                write!(text, " mount={:?}", mount.raw()).unwrap();
            }
            if run.network != Default::default() {
                write!(text, " network={:?}", run.network).unwrap();
            }
            if run.security != Default::default() {
                write!(text, " security={:?}", run.security).unwrap();
            }
            for device in &run.devices {
                write!(text, " device={:?}", device.name).unwrap();
            }
            text + &command(&run.command) + &run.heredocs.iter().map(heredoc).collect::<String>()
        }
        Instruction::Cmd(cmd) => command(&cmd.command),
        Instruction::Entrypoint(entrypoint) => command(&entrypoint.command),
        Instruction::Copy(copy) => {
            let mut text = copy.from.as_ref().map_or(String::new(), |from| format!(" from={:?}", from.value));
            flag(&mut text, "chown", &copy.chown);
            flag(&mut text, "chmod", &copy.chmod);
            if copy.link {
                text.push_str(" link");
            }
            if copy.parents {
                text.push_str(" parents");
            }
            copy.exclude.iter().for_each(|word| write!(text, " exclude={:?}", word.raw()).unwrap());
            text + &paths(&copy.paths)
        }
        Instruction::Add(add) => {
            let mut text = String::new();
            flag(&mut text, "chown", &add.chown);
            flag(&mut text, "chmod", &add.chmod);
            flag(&mut text, "checksum", &add.checksum);
            if add.link {
                text.push_str(" link");
            }
            for (name, value) in [("keep-git-dir", add.keep_git_dir), ("unpack", add.unpack)] {
                if let Some(value) = value {
                    write!(text, " {name}={value}").unwrap();
                }
            }
            add.exclude.iter().for_each(|word| write!(text, " exclude={:?}", word.raw()).unwrap());
            text + &paths(&add.paths)
        }
        Instruction::Workdir(workdir) => words(std::slice::from_ref(&workdir.path)),
        Instruction::User(user) => words(std::slice::from_ref(&user.user)),
        Instruction::Expose(expose) => words(&expose.ports),
        Instruction::Volume(volume) => words(&volume.paths),
        Instruction::StopSignal(stop) => words(std::slice::from_ref(&stop.signal)),
        Instruction::Healthcheck(check) => match &check.check {
            HealthcheckKind::None => " none".to_owned(),
            HealthcheckKind::Command { command: it, interval, timeout, start_period, start_interval, retries } => {
                format!(" {interval}/{timeout}/{start_period}/{start_interval}/{retries}{}", command(it))
            }
        },
        Instruction::Shell(shell) => format!(" {}", texts(&shell.argv)),
        Instruction::OnBuild(trigger) => format!(" {:?}", trigger.trigger),
    }
}

fn flag(out: &mut String, name: &str, value: &Option<Word>) {
    if let Some(value) = value {
        write!(out, " {name}={:?}", value.raw()).unwrap();
    }
}

fn words(words: &[Word]) -> String {
    words.iter().map(|word| format!(" {:?}", word.raw())).collect()
}

fn texts(texts: &[Text]) -> String {
    format!("{:?}", texts.iter().map(|text| text.value.as_str()).collect::<Vec<_>>())
}

fn pairs(pairs: &[Pair]) -> String {
    let one = |pair: &Pair| {
        let sign = if pair.form == PairForm::Equals { '=' } else { ' ' };
        format!(" {}{sign}{:?}", pair.name.raw(), pair.value.raw())
    };
    pairs.iter().map(one).collect()
}

fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => format!(" {:?}", text.value),
        CommandLine::Exec(args) => format!(" {}", texts(args)),
    }
}

fn heredoc(heredoc: &Heredoc) -> String {
    format!(" <<{}{:?}", if heredoc.opener.strips_tabs { "-" } else { "" }, heredoc.content)
}

fn paths(paths: &SourcesAndDest) -> String {
    let file =
        |file: &InlineFile| format!(" <<{}{}{:?}", file.name, if file.expands { "" } else { " quoted " }, file.content);
    format!(
        "{}{} ->{}",
        words(&paths.sources),
        paths.contents.iter().map(file).collect::<String>(),
        words(std::slice::from_ref(&paths.dest))
    )
}

//! Arbitrary input, from bytes to almost-Dockerfiles: nothing panics, places stay inside the text, and what is refused is refused
//! with a message. More cases: `PROPTEST_CASES=1000000 cargo test --release --test fuzz`.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rbuild_parser::instruction::{CommandLine, SourcesAndDest};
use rbuild_parser::word::{Style, expand_text};
use rbuild_parser::{
    Diagnostic, Dockerfile, Escape, Instruction, MountError, Source, Span, Word, glob, parse, parse_trigger, port,
};

/// Pieces that mean something, so that random text gets past the first hurdles.
fn soup() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "SHELL ",
        "EXPOSE ",
        "VOLUME ",
        "USER ",
        "WORKDIR ",
        "STOPSIGNAL ",
        "MAINTAINER ",
        "entrypoint ",
        "FORM ",
        "NONE",
        "# escape=`\n",
        "# syntax=x\n",
        "# check=skip=all\n",
        "# a\n",
        "#",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        "\\",
        "`",
        " ",
        "\t",
        "\u{a0}",
        "\u{b}",
        "<<EOF",
        "<<-E",
        "<< E",
        "<<'a b'",
        "3<<\"X\"",
        "EOF\n",
        "\tE\n",
        "X\n",
        "[",
        "]",
        "\"",
        "'",
        "\"a\"",
        ",",
        "{",
        "}",
        "$",
        "${",
        "${a:-b}",
        "${a#*}",
        "${a//b/c}",
        "$a",
        ":",
        "=",
        "a=b",
        "--",
        "--from=",
        "--mount=",
        "type=cache,target=/x",
        "--chown=é ",
        "--link",
        "AS ",
        "x",
        "é",
        "日本",
        "😀",
        "\u{feff}",
        "\0",
        "80/tcp",
        "/",
        "*",
        ".",
        "a b",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => soup(), 1 => any::<String>(), 1 => "[ -~\n\\\\`$\"'<]{0,80}"]
}

fn inside(source: &Source, span: Span) {
    assert!(span.start() <= span.end() && span.end() <= source.text().len(), "{span:?} of {}", source.text().len());
    source.position(span.start());
    source.position(span.end());
}

fn check_diagnostics(source: &Source, diagnostics: &[Diagnostic]) {
    let mut warnings = false;
    for diagnostic in diagnostics {
        assert!(!diagnostic.message.is_empty());
        assert!(!(warnings && diagnostic.is_error()), "errors come first");
        warnings |= !diagnostic.is_error();
        diagnostic
            .span
            .iter()
            .chain(diagnostic.labels.iter().map(|label| &label.span))
            .for_each(|span| inside(source, *span));
    }
}

/// All words of an instruction.
fn words(instruction: &Instruction) -> Vec<Word> {
    let paths = |paths: &SourcesAndDest| paths.sources.iter().chain([&paths.dest]).cloned().collect::<Vec<_>>();
    match instruction {
        Instruction::Add(add) => paths(&add.paths),
        Instruction::Copy(copy) => paths(&copy.paths).into_iter().chain(copy.chown.clone()).collect(),
        Instruction::Env(env) => env.pairs.iter().flat_map(|pair| [pair.name.clone(), pair.value.clone()]).collect(),
        Instruction::Label(label) => {
            label.pairs.iter().flat_map(|pair| [pair.name.clone(), pair.value.clone()]).collect()
        }
        Instruction::Arg(arg) => arg.args.iter().filter_map(|arg| arg.value.clone()).collect(),
        Instruction::Run(run) => run.mounts.iter().flat_map(|mount| mount.words().collect::<Vec<_>>()).collect(),
        Instruction::Expose(expose) => expose.ports.clone(),
        Instruction::Volume(volume) => volume.paths.clone(),
        Instruction::User(user) => vec![user.user.clone()],
        Instruction::Workdir(workdir) => vec![workdir.path.clone()],
        Instruction::StopSignal(stop) => vec![stop.signal.clone()],
        _ => Vec::new(),
    }
}

fn variables() -> BTreeMap<String, String> {
    [("a", "b b"), ("x", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn use_everything(source: &Source, file: &Dockerfile) {
    let variables = variables();
    for stage in &file.stages {
        inside(source, stage.origin.span);
        for instruction in &stage.instructions {
            inside(source, instruction.span());
            for word in words(instruction) {
                inside(source, word.span());
                word.expand(&variables).ok();
                word.expand_words(&variables).ok();
            }
            match instruction {
                Instruction::Run(run) => {
                    run.script();
                    run.summary();
                    for mount in &run.mounts {
                        mount.resolve(|word| word.expand(&variables).map(|it| it.text)).ok();
                    }
                    if let CommandLine::Shell(text) = &run.command {
                        expand_text(&text.value, &Style::display(Escape::Backslash), &variables).ok();
                    }
                }
                Instruction::Copy(copy) => {
                    copy.paths.contents.iter().for_each(|file| drop(file.expand(&variables)));
                }
                Instruction::OnBuild(trigger) => drop(parse_trigger(&trigger.trigger, file.escape(), Span::default())),
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dockerfiles(text in text()) {
        let source = Source::new("Dockerfile", text);
        let parsed = parse(&source);
        check_diagnostics(&source, &parsed.diagnostics);
        use_everything(&source, &parsed.value);
        prop_assert!(parsed.has_errors() || !parsed.value.stages.is_empty());
    }

    #[test]
    fn dockerfiles_with_a_stage(text in soup()) {
        let source = Source::new("Dockerfile", format!("FROM a\n{text}"));
        let parsed = parse(&source);
        check_diagnostics(&source, &parsed.diagnostics);
        use_everything(&source, &parsed.value);
    }

    #[test]
    fn line_ends_do_not_matter(text in soup()) {
        // Bodies of here-documents keep their line ends, so there are none here; nor carriage returns of other meaning.
        let text = text.replace("<<", "").replace('\r', "");
        let unix = parse(&Source::new("Dockerfile", text.as_str()));
        let dos = parse(&Source::new("Dockerfile", text.replace('\n', "\r\n")));
        let messages = |diagnostics: &[Diagnostic]| diagnostics.iter().map(|it| it.message.clone()).collect::<Vec<_>>();
        prop_assert_eq!(messages(&unix.diagnostics), messages(&dos.diagnostics));
    }

    #[test]
    fn triggers(text in text()) {
        let at = Span::new(3, 5);
        let parsed = parse_trigger(&text, Escape::Backtick, at);
        prop_assert!(parsed.value.is_some() != parsed.has_errors());
        for diagnostic in &parsed.diagnostics {
            prop_assert_eq!(diagnostic.span, Some(at));
        }
    }

    #[test]
    fn words_expand_or_say_why(text in prop_oneof![any::<String>(), "[a$:{}\"'\\\\`#%/?*+ -]{0,40}"]) {
        for escape in [Escape::Backslash, Escape::Backtick] {
            let word = Word::new(text.as_str(), Span::default(), escape);
            let joined = word.expand(&variables());
            let split = word.expand_words(&variables());
            prop_assert_eq!(joined.is_ok(), split.is_ok());
            if let (Ok(joined), Ok(split)) = (joined, split) {
                prop_assert_eq!(joined.matched, split.matched);
                prop_assert!(split.words.iter().all(|word| !word.is_empty()));
            }
        }
    }

    #[test]
    fn plain_words_stay_as_they_are(text in "[a-zA-Z0-9_./:=@%+,é日-]{0,40}") {
        let word = Word::new(text.as_str(), Span::default(), Escape::Backslash);
        prop_assert_eq!(word.expand(&variables()).map(|it| it.text), Ok(text));
    }

    #[test]
    fn single_quotes_protect(text in "[^']{0,40}") {
        let word = Word::new(format!("'{text}'"), Span::default(), Escape::Backslash);
        prop_assert_eq!(word.expand(&variables()).map(|it| it.text), Ok(text));
    }

    #[test]
    fn flags_keep_quoted_values(value in "[ !#-&(-\\[\\]-~]{1,30}", quote in prop::sample::select(vec!['"', '\''])) {
        let text = format!("FROM a\nCOPY --chown={quote}{value}{quote} --link x y\n");
        let parsed = parse(&Source::new("Dockerfile", text));
        prop_assert!(!parsed.has_errors());
        let [Instruction::Copy(copy)] = parsed.value.stages[0].instructions.as_slice() else { panic!("no COPY") };
        prop_assert_eq!(copy.chown.as_ref().map(Word::raw), Some(value.as_str()));
        prop_assert!(copy.link);
    }

    #[test]
    fn flags(flags in "(--(from|chown|link|parents|exclude|x|)(=|)(\"|'|\\\\|a| |é|[$]|){0,4} ){0,4}", keyword in "COPY|ADD|RUN|FROM|USER") {
        let source = Source::new("Dockerfile", format!("FROM a\n{keyword} {flags}x y\n"));
        let parsed = parse(&source);
        check_diagnostics(&source, &parsed.diagnostics);
        use_everything(&source, &parsed.value);
    }

    #[test]
    fn mounts(value in "((type|from|id|sharing|mode|ro|size|target|x)(=(bind|cache|tmpfs|secret|locked|7|/a|\\$a|\"b))?,?){0,5}") {
        let source = Source::new("Dockerfile", format!("FROM a\nRUN --mount={value} true\n"));
        let parsed = parse(&source);
        for instruction in parsed.value.stages.iter().flat_map(|stage| &stage.instructions) {
            if let Instruction::Run(run) = instruction {
                for mount in &run.mounts {
                    let resolved = mount.resolve(|word| word.expand(&variables()).map(|it| it.text));
                    prop_assert!(!matches!(resolved, Err(MountError::Csv(_))));
                }
            }
        }
    }

    #[test]
    fn ports(text in "[0-9a-zA-Z:./\\[\\]-]{0,20}") {
        if let Ok(spec) = port::parse(&text) {
            prop_assert!(!spec.ports.is_empty() && spec.ports.len() <= 65_536);
        }
    }

    #[test]
    fn globs(pattern in prop::collection::vec(any::<u8>(), 0..20), name in prop::collection::vec(any::<u8>(), 0..20)) {
        glob::matches(&pattern, &name).ok();
    }

    #[test]
    fn names_match_themselves(name in "[a-z/é.-]{0,20}") {
        prop_assert_eq!(glob::matches(name.as_bytes(), name.as_bytes()), Ok(true));
    }
}

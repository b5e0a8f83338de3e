//! Whole files: what they become, and everything that is wrong with them at once.
#![expect(clippy::unwrap_used, reason = "tests")]

mod dump;

use dump::dump;
use insta::assert_snapshot;
use rbuild_parser::instruction::Script;
use rbuild_parser::lint::Config;
use rbuild_parser::{Escape, Instruction, Overrides, Source, Span, parse, parse_trigger, parse_with};

fn shown(text: &str) -> String {
    let source = Source::new("Dockerfile", text);
    dump(&source, &parse(&source))
}

#[test]
fn an_ordinary_file() {
    let text = r#"# syntax=docker/dockerfile:1
# VERSION the version
ARG VERSION=1.2 NAME
# build compiles
FROM --platform=$BUILDPLATFORM debian:${VERSION} AS Build
WORKDIR /src
COPY --chown=1:2 --link a b\ c ./
RUN --mount=type=cache,target=/c --network=none make \
    # why not
    all && \
    make install
FROM scratch
COPY --from=build /out /
ENTRYPOINT ["/app", "-v\t"]
HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost/
ONBUILD RUN echo $X
EXPOSE 443 80/udp
"#;
    assert_snapshot!(shown(text), @r#"
    syntax=docker/dockerfile:1 @1:1-1:29
    3:1-3:21 ARG VERSION="1.2" # the version NAME
    5:1-5:58 FROM "debian:${VERSION}" platform="$BUILDPLATFORM" as build # compiles
      6:1-6:13 WORKDIR "/src"
      7:1-7:34 COPY chown="1:2" link "a" "b\\" "c" -> "./"
      8:1-11:17 RUN mount="type=cache,target=/c" network=None "make     all &&     make install"
    12:1-12:13 FROM "scratch"
      13:1-13:25 COPY from="build" "/out" -> "/"
      14:1-14:28 ENTRYPOINT ["/app", "-v\t"]
      15:1-15:71 HEALTHCHECK 90000000000/0/0/0/3 "curl -f http://localhost/"
      16:1-16:20 ONBUILD "RUN echo $X"
      17:1-17:18 EXPOSE "443" "80/udp"
    Warning StageNameCasing @5:1-5:58: Stage name 'Build' should be lowercase
    "#);
}

#[test]
fn here_documents() {
    let text = "FROM a
RUN <<EOF
#!/bin/sh
echo $X # no comment
EOF
COPY <<-\"A\" <<B /dest/
\tone
\tA
two
B
RUN 3<<X cat <&3
y
X
ONBUILD COPY <<E /x
z
E
RUN [\"<<EOF\"]
";
    assert_snapshot!(shown(text), @r##"
    1:1-1:7 FROM "a"
      2:1-5:4 RUN "<<EOF" <<"#!/bin/sh\necho $X # no comment\n"
      6:1-10:2 COPY <<A quoted "one\n" <<B"two\n" -> "/dest/"
      11:1-13:2 RUN "3<<X cat <&3" <<"y\n"
      14:1-16:2 ONBUILD "COPY <<E /x\nz\nE"
      17:1-17:14 RUN ["<<EOF"]
    "##);
}

#[test]
fn all_mistakes_at_once() {
    let text = r#"FROM a AS 1
FORM b
RUN --mont=type=cache true
COPY --link=perhaps a b
COPY \
  --from x \
  y
ENV A
EXPOSE
FROM b c
ENV A=1 # two
HEALTHCHECK --interval=1 CMD x
CMD ["a", 1]
ONBUILD FROM x
SHELL sh
"#;
    assert_snapshot!(shown(text), @r##"
    1:1-1:12 FROM "a"
    2:1-2:7 FORM ""
    10:1-10:9 FROM ""
    Error @8:5-8:6: ENV must have two arguments
      help: write `ENV A=value`
    Error @11:9-11:10: Syntax error - can't find = in "#". Must be of the form: name=value
      help: comments stand on lines of their own
    Error @13:5-13:13: when using JSON array syntax, arrays must be comprised of strings only
    Error @1:11-1:12: invalid name for build stage: "1", name can't start with a number or contain symbols
      help: a stage name starts with a letter and goes on with letters, digits, `-`, `_` and `.`
    Error @2:1-2:5: unknown instruction: FORM (did you mean FROM?)
      help: write `FROM`
    Error @3:5-3:22: unknown flag: --mont (did you mean mount?)
      help: RUN takes --device, --mount, --network, --security
    Error @4:6-4:20: expecting boolean value for flag --link, not: perhaps
      help: write `--link` or `--link=false`
    Error @5:1-5:5: missing a value on flag: --from
      label @6:3-6:9: here
      help: write `--from=VALUE`
    Error @9:1-9:7: EXPOSE requires at least one argument
    Error @10:1-10:5: FROM requires either one or three arguments
      help: write `FROM image` or `FROM image AS name`
    Error @12:24-12:25: time: missing unit in duration "1"
      help: a duration has a unit, for example `--interval=30s`
    Error @14:9-14:13: FROM isn't allowed as an ONBUILD trigger
    Error @15:7-15:9: SHELL requires the arguments to be in JSON form
      help: write for example `SHELL ["/bin/bash", "-c"]`
    "##);
}

#[test]
fn all_mistakes_of_one_instruction() {
    let text = r#"FROM --platfrm=x --platform a AS 1
COPY --from=a --chmd=1 --from=b --lnk x y
HEALTHCHECK --interval=1 --timeout=x --retries=-1 CMD
RUN --network=nome --security=sandbx --mount=from=$X,target=/y true
ENV =1 a=2 =3
ARG =1 b =2
VOLUME ["/a", " ", ""]
WORKDIR --x
ADD --link=2 x
"#;
    assert_snapshot!(shown(text), @r#"
    1:1-1:35 FROM "a"
    Error @1:34-1:35: invalid name for build stage: "1", name can't start with a number or contain symbols
      help: a stage name starts with a letter and goes on with letters, digits, `-`, `_` and `.`
    Error @1:6-1:17: unknown flag: --platfrm (did you mean platform?)
      help: FROM takes --platform
    Error @1:18-1:28: missing a value on flag: --platform
      help: write `--platform=VALUE`
    Error @2:15-2:23: unknown flag: --chmd (did you mean chmod?)
      help: COPY takes --chmod, --chown, --exclude, --from, --link, --parents
    Error @2:24-2:32: duplicate flag specified: --from
    Error @2:33-2:38: unknown flag: --lnk (did you mean link?)
      help: COPY takes --chmod, --chown, --exclude, --from, --link, --parents
    Error @3:51-3:54: Missing command after HEALTHCHECK CMD
    Error @3:24-3:25: time: missing unit in duration "1"
      help: a duration has a unit, for example `--interval=30s`
    Error @3:36-3:37: time: invalid duration "x"
      help: a duration has a unit, for example `--timeout=30s`
    Error @3:48-3:50: --retries cannot be negative (-1)
      help: write a number, for example `--retries=3`
    Error @4:46-4:63: 'from' doesn't support variable expansion, define alias stage instead
    Error @4:15-4:19: invalid network mode "nome" (did you mean none?)
      help: use default, none or host
    Error @4:31-4:37: security "sandbx" is not valid (did you mean sandbox?)
      help: use sandbox or insecure
    Error @5:5-5:7: ENV names can not be blank
    Error @5:12-5:14: ENV names can not be blank
    Error @6:5-6:7: ARG names can not be blank
    Error @6:10-6:12: ARG names can not be blank
    Error @7:15-7:18: VOLUME specified can not be an empty string
    Error @7:20-7:22: VOLUME specified can not be an empty string
    Error @8:1-8:8: WORKDIR requires exactly one argument
    Error @8:9-8:12: unknown flag: --x
      help: WORKDIR takes no flags
    Error @9:1-9:4: ADD requires at least two arguments, but only one was provided. Destination could not be determined
      help: write `ADD source… destination`
    Error @9:5-9:13: expecting boolean value for flag --link, not: 2
      help: write `--link` or `--link=false`
    "#);
}

#[test]
fn a_given_frontend_goes_before_that_of_the_file() {
    let parsed = |text: &str, frontend: &str| {
        let overrides = Overrides { frontend: Some(frontend.to_owned()), ..Overrides::default() };
        parse_with(&Source::new("Dockerfile", text), overrides).first_error().map(|error| error.message.clone())
    };
    assert_eq!(parsed("# syntax=example.com/x\nFROM a\n", "docker/dockerfile:1 debug=1"), None);
    let refused = |name: &str| Some(format!("the frontend {name} is not supported"));
    assert_eq!(parsed("FROM a\n", "example.com/x"), refused("example.com/x"));
    assert_eq!(parsed("FROM a\n", " "), refused("\"\""));
}

#[test]
fn instructions_before_from_are_told_once() {
    assert_snapshot!(shown("RUN a\nRUN b\nFROM c\n"), @r#"
    3:1-3:7 FROM "c"
    Error @1:1-1:6: no build stage in current context
      help: only ARG may stand before the first FROM
    "#);
}

#[test]
fn foreign_frontends_are_refused() {
    assert_snapshot!(shown("# syntax=example.com/other:1\n# check=hop\nFROM c\n"), @r#"
    syntax=example.com/other:1 @1:1-1:29
    check=hop @2:1-2:12
    3:1-3:7 FROM "c"
    Error @2:1-2:12: failed to parse check options: invalid check option "hop"
    Error @1:1-1:29: the frontend example.com/other:1 is not supported
      help: docker/dockerfile is built in; remove the directive if the file is an ordinary Dockerfile
    "#);
}

#[test]
fn comments_switch_checks_for_one_instruction() {
    assert_snapshot!(shown("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER x\nMAINTAINER y\n"), @r#"
    1:1-1:7 FROM "a"
      3:1-3:13 MAINTAINER "x"
      4:1-4:13 MAINTAINER "y"
    Warning MaintainerDeprecated @4:1-4:13: Maintainer instruction is deprecated in favor of using label
      help: write `LABEL org.opencontainers.image.authors="…"`
    "#);
}

fn with_checks(options: &str) -> Overrides {
    Overrides { checks: Some(Config::parse(options).unwrap()), ..Overrides::default() }
}

#[test]
fn given_checks_replace_those_of_the_file() {
    let source = Source::new("Dockerfile", "# check=skip=all;error=true\nFROM a AS B\nMAINTAINER x\n");
    assert!(parse(&source).diagnostics.is_empty());
    let parsed = parse_with(&source, with_checks("skip=StageNameCasing"));
    let names: Vec<_> = parsed.diagnostics.iter().filter_map(|it| Some(it.rule?.name)).collect();
    assert_eq!(names, ["MaintainerDeprecated"]);
    assert_eq!(parsed.value.checks.verdict(&parsed.diagnostics), None);
    let parsed = parse_with(&source, with_checks("error=true"));
    let verdict = parsed.value.checks.verdict(&parsed.diagnostics).unwrap();
    assert_eq!(verdict.message, "lint violation found for rules: MaintainerDeprecated, StageNameCasing");
}

#[test]
fn windows_paths() {
    assert_snapshot!(shown("# escape=`\nFROM a\nCOPY c:\\x c:\\y\\\nRUN dir `\n  c:\\\n"), @r#"
    escape=`
    2:1-2:7 FROM "a"
      3:1-3:16 COPY "c:\\x" -> "c:\\y\\"
      4:1-5:6 RUN "dir   c:\\"
    "#);
}

#[test]
fn places_in_continued_triggers() {
    assert_snapshot!(shown("FROM a\nONBUILD \\\n  ENV \\\n  A\nONBUILD \\\n # c\n COPY --frm=x \\\n a b\n"), @r#"
    1:1-1:7 FROM "a"
      5:1-8:5 ONBUILD "COPY --frm=x  a b"
    Error @2:1-4:4: ENV must have two arguments
      label @4:3-4:4: here
      help: write `ENV A=value`
    "#);
}

#[test]
fn triggers_are_read_in_their_own_text() {
    let at = Span::new(7, 9);
    let parsed = parse_trigger("RUN <<E\nx\nE", Escape::Backtick, at);
    let Some(Instruction::Run(run)) = parsed.value else { panic!("no RUN") };
    assert_eq!(run.script(), Script::Shell("x\n".to_owned()));
    assert_eq!((run.origin.span, run.heredocs[0].span), (at, at));
    let parsed = parse_trigger("ENV a=`$b", Escape::Backtick, at);
    let Some(Instruction::Env(env)) = parsed.value else { panic!("no ENV") };
    assert_eq!(env.pairs[0].value.escape(), Escape::Backtick);
    for (trigger, message) in [
        ("FROB x", "unknown instruction: FROB (did you mean FROM?)"),
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("", "file with no instructions"),
        ("RUN <<E", "unterminated heredoc"),
    ] {
        let parsed = parse_trigger(trigger, Escape::Backslash, at);
        let error = parsed.first_error().unwrap();
        assert_eq!((error.message.as_str(), error.span), (message, Some(at)), "{trigger}");
    }
}

#[test]
fn every_word_that_is_no_pair_is_told() {
    assert_snapshot!(shown("FROM a\nENV a=1 b =c d=2 # no\nLABEL x=1 y \\\n  z\nENV lone\n"), @r##"
    1:1-1:7 FROM "a"
    Error @2:9-2:10: Syntax error - can't find = in "b". Must be of the form: name=value
      help: quote values that contain blanks: name="a value"
    Error @2:18-2:19: Syntax error - can't find = in "#". Must be of the form: name=value
      help: comments stand on lines of their own
    Error @2:11-2:13: ENV names can not be blank
    Error @3:11-3:12: Syntax error - can't find = in "y". Must be of the form: name=value
      help: quote values that contain blanks: name="a value"
    Error @3:1-4:4: Syntax error - can't find = in "z". Must be of the form: name=value
      label @4:3-4:4: here
      help: quote values that contain blanks: name="a value"
    Error @5:5-5:9: ENV must have two arguments
      help: write `ENV lone=value`
    "##);
}

#[test]
fn only_blanks_of_one_byte_end_the_kind_of_a_healthcheck() {
    let first = |text: &str| {
        let parsed = parse(&Source::new("Dockerfile", format!("FROM a\nHEALTHCHECK {text}\n")));
        parsed.first_error().map(|error| error.message.clone())
    };
    assert_eq!(first("cmd\tx"), None);
    let unknown = |kind: &str| Some(format!("Unknown type \"{kind}\" in HEALTHCHECK (try CMD)"));
    assert_eq!(first("CMD\u{2003}x"), unknown("CMD\\u2003X"));
    assert_eq!(first("CMD\u{a0}x"), unknown("CMD\\u00a0"));
}

#[test]
fn scripts_are_put_together() {
    for (text, script) in [
        ("RUN a b", Script::Shell("a b".to_owned())),
        ("RUN", Script::Shell(String::new())),
        ("RUN [\"a\"]", Script::Exec(vec!["a".to_owned()])),
        ("RUN <<E\na\nE", Script::Shell("a\n".to_owned())),
        ("RUN <<-E\n\ta\n\tE", Script::Shell("a\n".to_owned())),
        ("RUN <<E\n#!/x\na\nE", Script::File { name: "E".to_owned(), content: "#!/x\na\n".to_owned() }),
        ("RUN <<-E\n\t#!/x\nE", Script::File { name: "E".to_owned(), content: "#!/x\n".to_owned() }),
        ("RUN x <<A <<-B\na\nA\n\tb\nB", Script::Shell("x <<A <<-B\na\nA\n\tb\nB".to_owned())),
    ] {
        let parsed = parse(&Source::new("Dockerfile", format!("FROM a\n{text}")));
        let [Instruction::Run(run)] = parsed.value.stages[0].instructions.as_slice() else { panic!("{text}") };
        assert_eq!(run.script(), script, "{text}");
    }
}

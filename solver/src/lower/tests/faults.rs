//! What is wrong with a file: all of it in one go, each thing once, and nothing that is not.

use super::*;

#[test]
fn all_mistakes_are_reported_in_one_go() {
    let text = "\
FROM debian AS one
EXPOSE web
COPY --chmod=rwx a /a
FROM scratch
COPY --from=one / /
VOLUME [\"$NOPE\"]
RUN --security=insecure x
RUN --mount=type=cache x
ADD --checksum=sha256:00 local /x
STOPSIGNAL NONE
LABEL a=\"${X?must be set}\"
";
    insta::assert_debug_snapshot!(plan_for(text, &goal(), None).unwrap_err(), @r#"
    [
        "2: invalid containerPort: web",
        "3: invalid chmod parameter: 'rwx': invalid syntax",
        "6: VOLUME specified can not be an empty string",
        "7: security.insecure is not allowed",
        "8: invalid mount target \"/\"",
        "9: checksum requires HTTP(S) or Git sources",
        "10: invalid signal: NONE",
        "11: failed to process \"\\\"${X?must be set}\\\"\": X: must be set",
    ]
    "#);
}

#[test]
fn nothing_is_said_that_an_unknown_base_may_mend() {
    let text = "\
FROM missing AS gone
WORKDIR $HOME
VOLUME $DATA
EXPOSE web $PORT
ENV A=${B:?}
FROM gone
USER ${C:?}
EXPOSE 99999
FROM debian AS target
COPY --from=gone / /
STOPSIGNAL $NONE
FROM target
COPY --from=1 a b
";
    insta::assert_debug_snapshot!(plan_for(text, &goal(), None).unwrap_err(), @r#"
    [
        "1: missing: failed to resolve source metadata for docker.io/library/missing:latest: docker.io/library/missing:latest: not found",
        "8: invalid containerPort: 99999",
        "11: invalid signal: ",
    ]
    "#);
}

#[test]
fn what_cannot_be_read_hides_no_other_mistakes_and_makes_none() {
    let text = "\
ARG =x
FROM --platfrom=x $BASE AS one
FORM debian AS two
EXPOSE web
COPY --from=two a b
FROM named AS three
COPY --from=1 a b
COPY --from=9 a b
VOLUME $UNKNOWN
RUN --mount=type=bnd,target=/x true
WORKDIR
";
    let source = rbuild_parser::Source::new("Dockerfile", text);
    let parsed = rbuild_parser::parse(&source);
    let found = more_faults(&source, &parsed.value, &goal(), &|name| name == "two");
    let line = |one: &Diagnostic| one.span.map_or(0, |span| source.position(span.start()).line);
    let found: Vec<_> = found.iter().map(|one| format!("{}: {}", line(one), one.message)).collect();
    insta::assert_debug_snapshot!(found, @r#"
    [
        "4: invalid containerPort: web",
        "8: invalid stage index 9",
        "10: unsupported mount type \"bnd\" (did you mean bind?)",
    ]
    "#);
}

#[test]
fn the_nearest_name_is_suggested() {
    let errors = |text: &str| plan_for(text, &goal(), None).unwrap_err().join("; ");
    let text = "FROM debian AS missings\nFROM debian\nCOPY --from=missing a b\n";
    assert!(errors(text).ends_with("missing:latest: not found (did you mean missings?)"), "{}", errors(text));
    let text = "FROM --platform=$TARGETPLATFROM debian\n";
    let want = "1: empty platform value from expression $TARGETPLATFROM (did you mean TARGETPLATFORM?)";
    assert_eq!(errors(text), want);
}

#[test]
fn stages_that_cannot_be_are_refused() {
    let errors = |text: &str, target: Option<&str>| {
        let goal = Goal { target: target.map(str::to_owned), ..goal() };
        plan_for(text, &goal, None).unwrap_err().join("; ")
    };
    for (text, target, want) in [
        ("FROM a AS x\nFROM b AS y\n", Some("z"), "0: target stage \"z\" could not be found (did you mean x?)"),
        ("FROM a\n", Some("0"), "0: target stage \"0\" could not be found"),
        ("FROM a AS x\nCOPY --from=X a b\n", None, "2: circular dependency detected on stage: x"),
        ("FROM a\nCOPY --from=1 a b\n", None, "2: invalid stage index 1"),
        ("FROM a\nCOPY --from=-1 a b\n", None, "2: invalid stage index -1"),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM b AS y\nRUN x\n",
            Some("x"),
            "2: cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
        ),
        ("FROM $X\n", None, "1: base name ($X) should not be blank"),
        ("FROM --platform=$X a\n", None, "1: empty platform value from expression $X"),
        (
            "FROM missing\n",
            None,
            "1: missing: failed to resolve source metadata for docker.io/library/missing:latest: \
             docker.io/library/missing:latest: not found",
        ),
        ("FROM a\nWORKDIR $X\n", None, "2: normalizing workdir: cannot normalize nothing"),
        ("FROM a\nCOPY https://h/f /x\n", None, "2: source can't be a URL for COPY"),
        ("FROM a\nADD https://h/r.git?x=1 /x\n", None, "2: unexpected query \"x\""),
        ("FROM a\nCOPY https://h/r.git?x=1 /x\n", None, "2: unexpected query \"x\""),
        ("FROM a\nCOPY https://h/r.git /x\n", None, "2: source can't be a git ref for COPY"),
        (
            "ARG S=a\nFROM a\nCOPY --from=$S a b\n",
            None,
            "3: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope \
             as a workaround",
        ),
        (
            "FROM a\nCOPY --from=${S a b\n",
            None,
            "2: failed to process \"${S\": unsupported modifier (\u{fffd}) in substitution",
        ),
        (
            "FROM a AS x\nRUN --mount=from=y,target=/t b\nFROM b AS y\n",
            Some("x"),
            "2: cannot mount from stage \"y\" to \"/t\", stage needs to be defined before current command",
        ),
    ] {
        assert_eq!(errors(text, target), want, "{text:?}");
    }
}

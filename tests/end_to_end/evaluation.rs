//! `--check` and `--call`: questions about a Dockerfile, answered as buildx answers them.

use crate::bench::{Bench, Ran};

const FILE: &str = "\
# check=skip=MaintainerDeprecated
ARG BASE=busybox
# TAG picks the base
ARG TAG=latest
FROM ${BASE}:${TAG} AS tools
RUN --mount=type=secret,id=npmrc,required \\
    true

# app is what is shipped
FROM scratch AS app
# VERSION is shown by --version
ARG VERSION=1.2 DEBUG
COPY --from=tools /bin/busybox /busybox
FROM app
LABEL version $VERSION
CMD exec /busybox
";

fn call(bench: &Bench, dockerfile: &str, args: &[&str]) -> Ran {
    let context = bench.context("ctx", [("Dockerfile", dockerfile)]);
    bench.rbuild(["build"]).args(args).arg(&context).run()
}

#[test]
fn checks_are_printed_as_by_buildx_and_end_with_one() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(call(&bench, FILE, &["--check"]).fails(1).stdout, @r#"
    Check complete, 2 warnings have been found!

    WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
    "LABEL key=value" should be used instead of legacy "LABEL key value" format
    Dockerfile:15
    --------------------
      13 |     COPY --from=tools /bin/busybox /busybox
      14 |     FROM app
      15 | >>> LABEL version $VERSION
      16 |     CMD exec /busybox
      17 |     
    --------------------

    WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
    JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
    Dockerfile:16
    --------------------
      14 |     FROM app
      15 |     LABEL version $VERSION
      16 | >>> CMD exec /busybox
      17 |     
    --------------------
    "#);
    let ran = call(&bench, FILE, &["--call=check,ignorestatus=true"]).ok();
    assert!(ran.stdout.starts_with("Check complete, 2 warnings have been found!\n"), "{}", ran.stdout);
    // Only what the target needs is checked.
    let ran = call(&bench, FILE, &["--check", "--target=app"]).ok();
    assert_eq!(ran.stdout, "Check complete, no warnings found.\n");
}

#[test]
fn checks_are_given_as_json() {
    let Some(bench) = Bench::with_busybox() else { return };
    let file = "FROM busybox\nMAINTAINER me\n";
    insta::assert_snapshot!(call(&bench, file, &["--call=check,format=json"]).fails(1).stdout, @r#"
    {
      "warnings": [
        {
          "ruleName": "MaintainerDeprecated",
          "description": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
          "url": "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
          "detail": "Maintainer instruction is deprecated in favor of using label",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        }
      ],
      "sources": [
        {
          "filename": "Dockerfile",
          "data": "RlJPTSBidXN5Ym94Ck1BSU5UQUlORVIgbWUK",
          "language": "Dockerfile"
        }
      ]
    }
    "#);
    insta::assert_snapshot!(call(&bench, "FROM scratch\nENV A\n", &["--print=lint,format=json"]).fails(1).stdout, @r#"
    {
      "warnings": null,
      "sources": [
        {
          "filename": "Dockerfile",
          "data": "RlJPTSBzY3JhdGNoCkVOViBBCg==",
          "language": "Dockerfile"
        }
      ],
      "buildError": {
        "message": "ENV must have two arguments",
        "location": {
          "ranges": [
            {
              "start": {
                "line": 2
              },
              "end": {
                "line": 2
              }
            }
          ]
        }
      }
    }
    "#);
}

#[test]
fn what_stops_a_build_is_told_after_what_the_checks_found() {
    let Some(bench) = Bench::with_busybox() else { return };
    let ran =
        call(&bench, "FROM busybox\nMAINTAINER me\nEXPOSE web 70000\nRUN --nework=none true\n", &["--check"]).fails(1);
    insta::assert_snapshot!(ran.stdout, @r#"
    Check complete, 1 warning has been found!

    WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
    Maintainer instruction is deprecated in favor of using label
    Dockerfile:2
    --------------------
       1 |     FROM busybox
       2 | >>> MAINTAINER me
       3 |     EXPOSE web 70000
       4 |     RUN --nework=none true
    --------------------
    "#);
    insta::assert_snapshot!(ran.stderr, @r#"
    error: invalid containerPort: web
     --> Dockerfile:3:8
      |
    3 | EXPOSE web 70000
      |        ^^^
      |
      = help: write a port or a range, for example 8080, 53/udp or 7000-7010
    error: invalid containerPort: 70000
     --> Dockerfile:3:12
      |
    3 | EXPOSE web 70000
      |            ^^^^^
      |
      = help: write a port or a range, for example 8080, 53/udp or 7000-7010
    error: unknown flag: --nework (did you mean network?)
     --> Dockerfile:4:5
      |
    4 | RUN --nework=none true
      |     ^^^^^^^^^^^^^
      |
      = help: RUN takes --device, --mount, --network, --security
    error: unknown flag: --nework (did you mean network?) (Dockerfile:4, and 2 more)
    "#);
}

#[test]
fn an_outline_lists_what_can_be_given() {
    let Some(bench) = Bench::with_busybox() else { return };
    let args = ["--call=outline", "--target=app", "--build-arg=TAG=latest"];
    insta::assert_snapshot!(call(&bench, FILE, &args).ok().stdout, @r#"
    TARGET:      app
    DESCRIPTION: is what is shipped

    BUILD ARG   VALUE     DESCRIPTION
    BASE        busybox   
    TAG         latest    picks the base
    DEBUG                 
    VERSION     1.2       is shown by --version

    SECRET   REQUIRED
    npmrc    true
    "#);
    insta::assert_snapshot!(call(&bench, "# x gives\nFROM scratch AS x\nARG A=1\n", &["--call=outline,format=json"]).ok().stdout, @r#"
    {
      "name": "x",
      "description": "gives",
      "args": [
        {
          "name": "A",
          "value": "1",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 3
                },
                "end": {
                  "line": 3
                }
              }
            ]
          }
        }
      ],
      "sources": [
        "IyB4IGdpdmVzCkZST00gc2NyYXRjaCBBUyB4CkFSRyBBPTEK"
      ]
    }
    "#);
}

#[test]
fn targets_are_listed() {
    let Some(bench) = Bench::with_busybox() else { return };
    insta::assert_snapshot!(call(&bench, FILE, &["--call=targets"]).ok().stdout, @r#"
    TARGET    DESCRIPTION
    tools     
    app       is what is shipped
    (default)
    "#);
    let file = "FROM --platform=$BUILDPLATFORM scratch AS a\nFROM a\n";
    insta::assert_snapshot!(call(&bench, file, &["--call=targets,format=json"]).ok().stdout, @r#"
    {
      "targets": [
        {
          "name": "a",
          "base": "scratch",
          "platform": "$BUILDPLATFORM",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 1
                },
                "end": {
                  "line": 1
                }
              }
            ]
          }
        },
        {
          "default": true,
          "base": "a",
          "location": {
            "ranges": [
              {
                "start": {
                  "line": 2
                },
                "end": {
                  "line": 2
                }
              }
            ]
          }
        }
      ],
      "sources": [
        "RlJPTSAtLXBsYXRmb3JtPSRCVUlMRFBMQVRGT1JNIHNjcmF0Y2ggQVMgYQpGUk9NIGEK"
      ]
    }
    "#);
}

#[test]
fn build_arguments_decide_about_checks_and_frontend() {
    let Some(bench) = Bench::with_busybox() else { return };
    let strict = ["--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=true", "--progress=quiet"];
    insta::assert_snapshot!(call(&bench, "FROM busybox\nMAINTAINER me\n", &strict).fails(1).stderr, @r#"
    error: lint violation found for rules: MaintainerDeprecated
     --> Dockerfile:2:1
      |
    2 | MAINTAINER me
      | ^^^^^^^^^^^^^
      |
      = help: mend what `rbuild --check` shows, or take `error=true` out of the check directive
    "#);
    let skipped = ["--check", "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all"];
    let _clean = call(&bench, "FROM busybox\nMAINTAINER me\n", &skipped).ok();
    let wrong = ["--build-arg=BUILDKIT_DOCKERFILE_CHECK=skp=all"];
    insta::assert_snapshot!(call(&bench, FILE, &wrong).fails(1).stderr, @r#"
    error: failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option "skp"
     |
     = help: e.g. --build-arg BUILDKIT_DOCKERFILE_CHECK='skip=JSONArgsRecommended;error=true'
    "#);
    let foreign = "# syntax=example.com/frontend\nFROM scratch\nLABEL a=b\n";
    let _built = call(&bench, foreign, &["--build-arg=BUILDKIT_SYNTAX=docker/dockerfile:1"]).ok();
    insta::assert_snapshot!(call(&bench, FILE, &["--build-arg=BUILDKIT_SYNTAX=example.com/x"]).fails(1).stderr, @r#"
    error: the frontend example.com/x is not supported
     |
     = help: docker/dockerfile is built in; leave the build argument BUILDKIT_SYNTAX out
    "#);
    let _wrong = call(&bench, FILE, &["--build-arg=BUILDKIT_MULTI_PLATFORM=perhaps"])
        .fails(1)
        .says("invalid boolean value for multi-platform: perhaps");
    let _idle = call(&bench, "FROM scratch\nLABEL a=b\n", &["--build-arg=BUILDKIT_INLINE_CACHE=1"])
        .ok()
        .says("BUILDKIT_INLINE_CACHE has no effect");
}

#[test]
fn unknown_methods_are_refused_by_name() {
    let Some(bench) = Bench::new() else { return };
    let _ran = call(&bench, FILE, &["--call=target"]).fails(2).says("did you mean targets?");
}

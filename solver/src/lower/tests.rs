//! Whole files lowered, shown as text: a line for each vertex, then what the image became.

mod faults;
mod official;
mod reference;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rbuild_image::{Digest, ImageConfig, ImageRef, Platform};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::*;
use crate::cancel::CancelToken;
use crate::fixture::{Events, FakeWorker, MemoryCache};
use crate::op::{CopyAction, FileAction, Linking, Op, RunMountKind, RunNetwork, Unpack};
use crate::schedule::{OnFailure, SolveOptions, Surroundings, solve};

/// Any image exists, has one layer and its own name in a variable; `trigger` brings triggers, `shell` a shell.
struct World {
    context: Option<NamedContext>,
}

impl Resolve for World {
    fn image(&self, reference: &ImageRef, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        if reference.repository().ends_with("missing") {
            let message = format!("{}: not found", reference.canonical());
            return Err(ResolveError { message, help: None });
        }
        let mut config = json!({"Env": ["PATH=/bin", format!("FROM={reference}")]});
        match reference.repository() {
            "library/trigger" => config["OnBuild"] = json!(["COPY --from=tools /t /t", "RUN trigger"]),
            "library/shell" => config["Shell"] = json!(["/bin/bash", "-c"]),
            _ => {}
        }
        let document = json!({
            "architecture": platform.architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256("layer")]}, "history": [{"created_by": "base"}],
        });
        let digest = Digest::sha256(format!("{reference} {platform}"));
        let config = Arc::new(ImageConfig::parse(document.to_string().as_bytes()).unwrap());
        Ok(ResolvedImage { reference: reference.clone(), shown: Digest::sha256("index"), digest, config })
    }

    fn context(&self, name: &str, _: &Platform) -> Result<Option<NamedContext>, ResolveError> {
        Ok(self.context.clone().filter(|_| name == "named"))
    }
}

pub(super) fn goal() -> Goal {
    Goal::new("linux/amd64".parse().unwrap())
}

pub(super) fn plan_for(text: &str, goal: &Goal, context: Option<NamedContext>) -> Result<Plan, Vec<String>> {
    let source = rbuild_parser::Source::new("Dockerfile", text);
    let parsed = rbuild_parser::parse(&source);
    assert!(!parsed.has_errors(), "{:?}", parsed.first_error());
    lower(&source, &parsed.value, goal, &World { context }).map_err(|errors| {
        let line = |error: &Diagnostic| error.span.map_or(0, |span| source.position(span.start()).line);
        let errors = errors.iter().filter(|error| error.is_error());
        errors.map(|error| format!("{}: {}", line(error), error.message)).collect()
    })
}

pub(super) fn plan(text: &str, goal: &Goal) -> Plan {
    plan_for(text, goal, None).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn show(plan: &Plan) -> String {
    let mut out = String::new();
    for id in plan.graph.ids() {
        let vertex = plan.graph.vertex(id);
        let number = |input: &Option<VertexId>| input.map_or("-".to_owned(), |id| id.index().to_string());
        let inputs: Vec<String> = vertex.inputs.iter().map(number).collect();
        let fresh = if vertex.cache_use == CacheUse::Ignored { " (no cache)" } else { "" };
        let name = vertex.name.replace(&Digest::sha256("index").hex(), "…");
        writeln!(out, "{} {name}{fresh} ← {}", id.index(), inputs.join(" ")).unwrap();
        show_op(&vertex.op, &mut out);
    }
    for platform in &plan.platforms {
        let rootfs = platform.rootfs.map_or("-".to_owned(), |id| id.index().to_string());
        let layers: Vec<usize> = platform.image.layers.iter().map(|id| id.index()).collect();
        writeln!(out, "{}: {rootfs}, layers {layers:?}", platform.platform).unwrap();
        for entry in &platform.image.config.history[platform.image.inherited_history..] {
            writeln!(out, "  {}{}", if entry.empty_layer { "" } else { "+ " }, entry.created_by).unwrap();
        }
    }
    out
}

fn show_op(op: &Op, out: &mut String) {
    match op {
        Op::Source(_) => {}
        Op::Run(run) => {
            for mount in &run.mounts {
                let target = mount.target.as_ref().map_or("-".to_owned(), ToString::to_string);
                let kind = match &mount.kind {
                    RunMountKind::Inline { content, .. } => format!("inline {content:?}"),
                    kind => format!("{kind:?}"),
                };
                writeln!(out, "    {target} {kind}").unwrap();
            }
            if run.network != RunNetwork::Default {
                writeln!(out, "    network {:?}", run.network).unwrap();
            }
        }
        Op::File(file) => {
            if file.linking == Linking::Independent {
                writeln!(out, "    linked").unwrap();
            }
            for action in &file.actions {
                match action {
                    FileAction::Copy(CopyAction { input, source, dest, chown, chmod, unpack, parents, .. }) => {
                        let input = input.map_or("-".to_owned(), |input| input.to_string());
                        write!(out, "    {input}:{source} → {dest}").unwrap();
                        for (name, value) in [("chown", chown), ("chmod", chmod)] {
                            if let Some(value) = value {
                                write!(out, " {name}={value}").unwrap();
                            }
                        }
                        let unpack = if *unpack == Unpack::Archives { " unpack" } else { "" };
                        writeln!(out, "{unpack}{}", if *parents { " parents" } else { "" }).unwrap();
                    }
                    FileAction::Write(write) => {
                        writeln!(out, "    {:?} → {}", String::from_utf8_lossy(&write.content), write.dest).unwrap();
                    }
                    FileAction::MakeDir(make) => writeln!(out, "    mkdir {} {:?}", make.path, make.owner).unwrap(),
                }
            }
        }
    }
}

#[test]
fn stages_are_numbered_and_only_needed_ones_are_planned() {
    let text = "\
FROM debian AS build
WORKDIR /src
COPY . .
RUN make
FROM debian AS unused
RUN exit 1
FROM scratch
COPY --from=build --chown=app /src/out /bin/
ENV A=1 B=$A
CMD [\"/bin/out\"]
";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [build 1/4] FROM docker.io/library/debian:latest@sha256:… ← 
    1 [build 2/4] WORKDIR /src ← 0
        mkdir /src None
    2 [internal] load build context ← 
    3 [build 3/4] COPY . . ← 1 2
        1:. → /src/
    4 [build 4/4] RUN make ← 3
    5 [stage-2 1/1] COPY --from=build --chown=app /src/out /bin/ ← - 4
        1:/src/out → /bin/ chown=app
    linux/amd64: 5, layers [5]
      + COPY --chown=app /src/out /bin/ # buildkit
      ENV A=1 B=
      CMD ["/bin/out"]
    "#);
}

#[test]
fn mounts_read_what_they_name() {
    let text = "\
FROM debian AS tools
FROM debian
WORKDIR /w
ARG T=/t
RUN --mount=target=$T --mount=type=cache,target=/c,from=tools,source=/s,mode=0700 \\
    --mount=type=tmpfs,target=/m,size=1m --mount=type=secret,id=key,env=K --mount=type=ssh \\
    --mount=from=tools,target=rel --network=none echo $K $UNSET
RUN <<EOF
#!/bin/x
EOF
";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r##"
    0 [tools 1/1] FROM docker.io/library/debian:latest@sha256:… ← 
    1 [stage-1 2/4] WORKDIR /w ← 0
        mkdir /w None
    2 [internal] load build context ← 
    3 [stage-1 3/4] RUN --mount=target=/t --mount=type=cache,target=/c,from=tools,source=/s,mode=0700     --mount=type=tmpfs,target=/m,size=1m --mount=type=secret,id=key,env=K --mount=type=ssh     --mount=from=tools,target=rel --network=none echo **** $UNSET ← 1 2 0
        /t Bind { input: Some(1), source: "/", writable: false }
        /c Cache { id: "/c", sharing: Shared, input: Some(2), source: "/s", writable: true, mode: 493, uid: 0, gid: 0 }
        /m Tmpfs { size: Some(1048576) }
        - Secret { id: "key", env: Some("K"), required: false, mode: 256, uid: 0, gid: 0 }
        /run/buildkit/ssh_agent.0 Ssh { id: "default", required: false, mode: 384, uid: 0, gid: 0 }
        /w/rel Bind { input: Some(2), source: "/", writable: false }
        network None
    4 [stage-1 4/4] RUN <<EOF (#!/bin/x) ← 3
        /dev/pipes/EOF inline "#!/bin/x\n"
    linux/amd64: 4, layers [1, 3, 4]
      + WORKDIR /w
      ARG T=/t
      + RUN |1 T=/t /bin/sh -c echo $K $UNSET # buildkit
      + RUN |1 T=/t /bin/sh -c /dev/pipes/EOF # buildkit
    "##);
}

#[test]
fn files_come_from_contexts_documents_urls_and_repositories() {
    let text = "\
FROM debian
ARG N=1
COPY --link a b$N /d/
COPY --link --chmod=u+x a /d
COPY --parents x/./y /p/
COPY <<ONE <<\"TWO\" rel/
$N
ONE
$N
TWO
ADD --chown=1:2 local.tar https://h/f.tar https://h/r.git#v1:sub /a/
ADD --unpack https://h/f.tar /u
";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/7] FROM docker.io/library/debian:latest@sha256:… ← 
    1 [internal] load build context ← 
    2 [2/7] COPY --link a b1 /d/ ← 0 1
        linked
        1:a → /d/
        1:b1 → /d/
    3 [3/7] COPY --link --chmod=u+x a /d ← 2 1
        1:a → /d chmod=u+x
    4 [4/7] COPY --parents x/./y /p/ ← 3 1
        1:x/./y → /p/ parents
    5 [5/7] COPY <<ONE <<TWO rel/ ← 4
        "1\n" → /rel/
        "$N\n" → /rel/
    6 ADD --chown=1:2 local.tar https://h/f.tar https://h/r.git#v1:sub /a/ (https://h/f.tar) ← 
    7 ADD --chown=1:2 local.tar https://h/f.tar https://h/r.git#v1:sub /a/ (https://h/r.git#v1:sub) ← 
    8 [6/7] ADD --chown=1:2 local.tar https://h/f.tar https://h/r.git#v1:sub /a/ ← 5 1 6 7
        1:local.tar → /a/ chown=1:2 unpack
        2:f.tar → /a/ chown=1:2
        3:/ → /a/ chown=1:2
    9 [7/7] ADD --unpack https://h/f.tar /u ← 8 6
        1:f.tar → /u unpack
    linux/amd64: 9, layers [2, 3, 4, 5, 8, 9]
      ARG N=1
      + COPY a b1 /d/ # buildkit
      + COPY --chmod=u+x a /d # buildkit
      + COPY --parents x/./y /p/ # buildkit
      + COPY <<ONE <<TWO rel/ # buildkit
      + ADD --chown=1:2 local.tar https://h/f.tar https://h/r.git#v1:sub /a/ # buildkit
      + ADD https://h/f.tar /u # buildkit
    "#);
}

#[test]
fn filtered_stages_run_again_and_others_do_not() {
    let text = "FROM a AS one\nRUN x\nFROM b AS two\nCOPY --from=one /x /x\nRUN y\n";
    let goal = Goal { no_cache: NoCache::Stages(vec!["ONE".into()]), ..goal() };
    insta::assert_snapshot!(show(&plan(text, &goal)), @r"
    0 [one 1/2] FROM docker.io/library/a:latest@sha256:… ← 
    1 [one 2/2] RUN x (no cache) ← 0
    2 [two 1/3] FROM docker.io/library/b:latest@sha256:… ← 
    3 [two 2/3] COPY --from=one /x /x ← 2 1
        1:/x → /x
    4 [two 3/3] RUN y ← 3
    linux/amd64: 4, layers [3, 4]
      + COPY /x /x # buildkit
      + RUN /bin/sh -c y # buildkit
    ");
}

#[test]
fn platforms_share_what_does_not_depend_on_them() {
    let text = "\
FROM --platform=$BUILDPLATFORM golang AS build
RUN prepare
ARG TARGETARCH
RUN compile $TARGETARCH
FROM debian
COPY --from=build /out /out
";
    let platforms = ["linux/amd64", "linux/arm64"].map(|platform| platform.parse().unwrap()).to_vec();
    insta::assert_snapshot!(show(&plan(text, &Goal { platforms, ..goal() })), @r"
    0 [linux/amd64 build 1/3] FROM docker.io/library/golang:latest@sha256:… ← 
    1 [linux/amd64 build 2/3] RUN prepare ← 0
    2 [linux/amd64 build 3/3] RUN compile amd64 ← 1
    3 [linux/amd64 stage-1 1/2] FROM docker.io/library/debian:latest@sha256:… ← 
    4 [linux/amd64 stage-1 2/2] COPY --from=build /out /out ← 3 2
        1:/out → /out
    5 [linux/amd64->arm64 build 3/3] RUN compile arm64 ← 1
    6 [linux/arm64 stage-1 1/2] FROM docker.io/library/debian:latest@sha256:… ← 
    7 [linux/arm64 stage-1 2/2] COPY --from=build /out /out ← 6 5
        1:/out → /out
    linux/amd64: 4, layers [4]
      + COPY /out /out # buildkit
    linux/arm64: 7, layers [7]
      + COPY /out /out # buildkit
    ");
}

#[test]
fn triggers_run_first_and_may_need_more_stages() {
    let text = "\
FROM debian AS tools
RUN tool
FROM trigger AS parent
ONBUILD ENV T=1
RUN own
FROM parent
CMD x
";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [tools 1/2] FROM docker.io/library/debian:latest@sha256:… ← 
    1 [tools 2/2] RUN tool ← 0
    2 [parent 1/4] FROM docker.io/library/trigger:latest@sha256:… ← 
    3 [parent 2/4] ONBUILD COPY --from=tools /t /t ← 2 1
        1:/t → /t
    4 [parent 3/4] ONBUILD RUN trigger ← 3
    5 [parent 4/4] RUN own ← 4
    linux/amd64: 5, layers [3, 4, 5]
      + COPY /t /t # buildkit
      + RUN /bin/sh -c trigger # buildkit
      + RUN /bin/sh -c own # buildkit
      ENV T=1
      CMD ["/bin/sh" "-c" "x"]
    "#);
}

#[test]
fn a_named_context_of_files_becomes_a_layer_under_a_stage_and_stays_files_for_copies() {
    let files = NamedContext::Files(Source::Context(ContextSource { name: "named".into() }));
    let text = "FROM named AS a\nRUN x\nFROM named AS b\nENV B=1\nFROM a\nCOPY --from=named f /f\nCOPY --from=b f /f\n";
    let plan = plan_for(text, &goal(), Some(files)).unwrap();
    insta::assert_snapshot!(show(&plan), @r"
    0 [context named] load from client ← 
    1 [context named] load from client ← - 0
        1:/ → /
    2 [a 1/2] RUN x ← 1
    3 [stage-2 1/2] COPY --from=named f /f ← 2 0
        1:f → /f
    4 [stage-2 2/2] COPY --from=b f /f ← 3 0
        1:f → /f
    linux/amd64: 4, layers [1, 2, 3, 4]
      + RUN /bin/sh -c x # buildkit
      + COPY f /f # buildkit
      + COPY f /f # buildkit
      + [stage-2 2/2] COPY --from=b f /f
    ");
}

#[test]
fn the_shell_of_an_image_and_of_an_instruction_are_used() {
    let text = "FROM shell\nRUN a\nSHELL [\"/bin/zsh\", \"-e\"]\nRUN b\nENTRYPOINT c\nHEALTHCHECK CMD d\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/3] FROM docker.io/library/shell:latest@sha256:… ← 
    1 [2/3] RUN a ← 0
    2 [3/3] RUN b ← 1
    linux/amd64: 2, layers [1, 2]
      + RUN /bin/bash -c a # buildkit
      SHELL [/bin/zsh -e]
      + RUN /bin/zsh -e b # buildkit
      ENTRYPOINT ["/bin/zsh" "-e" "c"]
      HEALTHCHECK {Test:[CMD-SHELL d] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
    "#);
}

#[test]
fn an_outline_names_what_can_be_given() {
    let text = "\
# BASE what to start from
ARG BASE=$DISTRO
ARG DISTRO=debian UNUSED=1
ARG IMAGE=${DISTRO}:x
FROM debian AS other
ARG OTHER
RUN --mount=type=secret,id=hidden x

# app the program
FROM $IMAGE AS app
ARG DISTRO TARGETARCH
# LEVEL how much
ARG LEVEL=3
RUN --mount=type=secret,id=key,required=true --mount=type=ssh x
";
    let source = rbuild_parser::Source::new("Dockerfile", text);
    let file = rbuild_parser::parse(&source).value;
    let found = outline(&source, &file, &goal(), &World { context: None }).unwrap();
    let line = |span: Span| source.position(span.start()).line;
    let mut out = format!("{} ({})\n", found.name, found.description.unwrap_or_default());
    for arg in &found.args {
        let description = arg.description.as_deref().unwrap_or_default();
        writeln!(out, "{}: arg {}={} ({description})", line(arg.span), arg.name, arg.value).unwrap();
    }
    for input in found.secrets.iter().chain(&found.agents) {
        writeln!(out, "{}: {} required {}", line(input.span), input.name, input.required).unwrap();
    }
    for target in targets(&file) {
        writeln!(out, "{}: {} from {}, default {}", line(target.span), target.name, target.base, target.is_default)
            .unwrap();
    }
    insta::assert_snapshot!(out, @r"
    app (the program)
    3: arg DISTRO=debian ()
    4: arg IMAGE=debian:x ()
    13: arg LEVEL=3 (how much)
    14: key required true
    14: default required false
    5: other from debian, default false
    10: app from $IMAGE, default true
    ");
}

/// What a second build runs when the first one had another Dockerfile, goal or context.
fn reruns(before: (&str, &Goal, &str), after: (&str, &Goal, &str)) -> Vec<String> {
    let mut worker = FakeWorker::default();
    let cache = MemoryCache::default();
    let mut ran = Vec::new();
    for (text, goal, context) in [before, after] {
        worker.contexts.insert(String::new(), context.to_owned());
        let plan = plan(text, goal);
        let (events, cancel) = (Events::default(), CancelToken::new());
        let around = Surroundings { worker: &worker, cache: &cache, events: &events, cancel: &cancel };
        let limits = crate::Limits { jobs: 2, processors: None, transfers: 2 };
        let options = SolveOptions { limits, began: Instant::now(), on_failure: OnFailure::Cancel };
        let targets: Vec<_> = plan.platforms.iter().filter_map(|platform| platform.rootfs).collect();
        solve(&plan.graph, &targets, around, options).products.unwrap();
        ran = worker.ran();
    }
    ran.retain(|command| !command.contains("FROM"));
    ran
}

#[test]
fn what_repeats_a_step_and_what_does_not() {
    let base = "FROM debian AS one\nRUN a\nCOPY x /x\nRUN b\n";
    let with = |change: &dyn Fn(&mut Goal)| {
        let mut goal = goal();
        change(&mut goal);
        goal
    };
    let plain = goal();
    let arg = "FROM debian\nRUN a\nARG A=1\nRUN b\n";
    let no_cache = with(&|goal| goal.no_cache = NoCache::Everything);
    let given = with(&|goal| drop(goal.build_args.insert("A".into(), "2".into())));
    let proxy = with(&|goal| drop(goal.build_args.insert("http_proxy".into(), "p".into())));
    let hostname = with(&|goal| goal.hostname = Some("h".into()));
    let network = with(&|goal| goal.network = RunNetwork::None);
    let edit = |from: &str, to: &str| base.replace(from, to);
    let copy = "[one 3/4] COPY x /x".replace("one ", "");
    for (what, text, goal, context, expected) in [
        ("nothing", base, &plain, "c", vec![]),
        ("a comment", &edit("RUN b", "# b\nRUN b"), &plain, "c", vec![]),
        ("a stage's name", &edit("AS one", "AS two"), &plain, "c", vec![]),
        ("a label", &edit("RUN a", "LABEL a=b\nRUN a"), &plain, "c", vec![]),
        ("the command", &edit("RUN a", "CMD x\nENTRYPOINT y\nRUN a"), &plain, "c", vec![]),
        ("a variable", &edit("COPY", "ENV A=1\nCOPY"), &plain, "c", vec!["b"]),
        ("the user", &edit("RUN b", "USER app\nRUN b"), &plain, "c", vec!["b"]),
        ("the shell", &edit("RUN b", "SHELL [\"x\"]\nRUN b"), &plain, "c", vec!["b"]),
        ("the first step", &edit("RUN a", "RUN a2"), &plain, "c", vec![&copy, "a2", "b"]),
        ("the context", base, &plain, "other", vec![&copy, "b"]),
        ("the base", &edit("debian", "alpine"), &plain, "c", vec![&copy, "a", "b"]),
        ("proxies", base, &proxy, "c", vec![]),
        ("the host name", base, &hostname, "c", vec![]),
        ("the network", base, &network, "c", vec!["a", "b"]),
        ("--no-cache", base, &no_cache, "c", vec![&copy, "a", "b"]),
    ] {
        assert_eq!(reruns((base, &plain, "c"), (text, goal, context)), expected, "{what}");
    }
    assert_eq!(reruns((arg, &plain, "c"), (arg, &given, "c")), ["b"], "an argument counts from where it is declared");
    let secret = "FROM debian\nRUN --mount=type=secret,id=a a\n";
    assert_eq!(reruns((secret, &plain, "c"), (secret, &plain, "c")), [""; 0]);
}

/// Lines that instructions are made of, right and wrong ones.
const PIECES: [&str; 44] = [
    "FROM debian",
    "FROM debian AS a",
    "FROM a AS b",
    "FROM scratch AS c",
    "FROM trigger",
    "FROM --platform=$BUILDPLATFORM shell AS d",
    "FROM ${X:-a}",
    "FROM $Y",
    "FROM named AS e",
    "ARG X",
    "ARG X=1 Y=$X",
    "ARG TARGETARCH HTTP_PROXY",
    "ENV X=$Y Z=${X:?no}",
    "ENV Y ${X%%*}",
    "RUN x $X",
    "RUN [\"x\", \"$X\"]",
    "RUN --mount=from=a,target=$X x",
    "RUN --mount=type=cache,target=/c,from=b --mount=type=ssh x",
    "RUN --mount=type=secret,id=$X,env=$Y x",
    "RUN --network=host x",
    "RUN <<EOF\n#!/x\nEOF",
    "RUN cat <<A <<-B\na\nA\n\tb\nB",
    "COPY . .",
    "COPY --from=a $X /x/../y/",
    "COPY --from=0 / /",
    "COPY --from=9 / /",
    "COPY --from=other/image:1 a* ../b",
    "COPY --link --chown=$X --chmod=u+$Y a b",
    "COPY --parents <<EOF /x\n$X\nEOF",
    "ADD --checksum=$X https://h/f /d",
    "ADD git@h:r.git#$X:$Y /d",
    "WORKDIR $X",
    "WORKDIR ../a",
    "USER $X",
    "EXPOSE $X 1-3/udp",
    "VOLUME $X /v",
    "LABEL \"a b\"=$X $Y=c",
    "CMD x",
    "ENTRYPOINT []",
    "SHELL [\"/s\"]",
    "HEALTHCHECK --interval=5s CMD x",
    "STOPSIGNAL $X",
    "ONBUILD COPY --from=a x y",
    "ONBUILD RUN $X",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_is_lowered_or_refused_and_always_the_same(
        lines in prop::collection::vec(prop::sample::select(&PIECES[..]), 1..24),
        value in "[a-z0-9/:$.]{0,6}",
        every in any::<bool>(),
    ) {
        let text = format!("ARG X\nFROM debian AS a\n{}\n", lines.join("\n"));
        let source = rbuild_parser::Source::new("Dockerfile", text);
        let parsed = rbuild_parser::parse(&source);
        let mut goal = goal();
        goal.build_args.insert("Y".to_owned(), value);
        goal.stages = if every { StageChoice::All } else { StageChoice::Needed };
        let files = NamedContext::Files(Source::Context(ContextSource { name: "named".into() }));
        let world = World { context: Some(files) };
        let lowered = || match lower(&source, &parsed.value, &goal, &world) {
            Ok(plan) => {
                let needed = crate::prune::needed(&plan.graph, &plan.platforms[0].rootfs.into_iter().collect::<Vec<_>>());
                let layers = &plan.platforms[0].image.layers;
                let history = &plan.platforms[0].image.config.history[plan.platforms[0].image.inherited_history..];
                let made = history.iter().filter(|entry| !entry.empty_layer).count();
                assert_eq!(made, layers.len(), "each layer has a line of history");
                assert!(layers.iter().all(|layer| needed.contains(layer)), "each layer is below the result");
                show(&plan)
            }
            Err(errors) => format!("{errors:?}"),
        };
        prop_assert_eq!(lowered(), lowered());
    }
}

/// A stage of many instructions that lean on each other.
fn long_stage(instructions: usize) -> String {
    let mut text = String::from("FROM debian\n");
    for number in 0..instructions {
        match number % 4 {
            0 => writeln!(text, "ENV V{}=${{V{}}}x", number % 64, (number + 4) % 64),
            1 => writeln!(text, "RUN echo {number}"),
            2 => writeln!(text, "COPY f{number} /d/"),
            _ => writeln!(text, "LABEL l{}=$V0", number % 64),
        }
        .unwrap();
        if number % 256 == 0 {
            // Values would double for ever.
            (0..64).for_each(|at| writeln!(text, "ENV V{at}=").unwrap());
        }
    }
    text
}

/// The processor time that this thread has had; what others do on the machine hardly shows in it.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[test]
fn a_long_stage_takes_no_longer_by_the_instruction() {
    let time = |instructions: usize| {
        let text = long_stage(instructions);
        let began = processor_time();
        let plan = plan(&text, &goal());
        let took = processor_time() - began;
        assert_eq!(plan.graph.len(), instructions / 2 + 2);
        took
    };
    // Linear is 16 times as long, quadratic 256 times. What lies between is left to caches and busy neighbours.
    let is_linear = || {
        let small = (0..3).map(|_| time(624)).min().unwrap_or_default();
        let large = time(9_984);
        println!("624 instructions: {small:?}, 16 times as many: {large:?}");
        large < small * 64
    };
    assert!((0..3).any(|_| is_linear()));
}

//! Languages: compilers that download themselves, interpreters with package managers, static results.

use super::super::*;

#[test]
fn a_scripting_language_built_from_source_and_purged_again() {
    let text = r#"FROM debian:bookworm-slim
# runtime packages stay
RUN set -eux; \
	apt-get update; \
	apt-get install -y --no-install-recommends \
		ca-certificates \
# a comment at the left edge
		netbase \
	; \
	rm -rf /var/lib/apt/lists/*
ENV LANG=C.UTF-8
ENV GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305 PYTHON_VERSION=3.13.0
ENV PYTHON_SHA256="${PYTHON_VERSION}-086de5882e3cb310d4dca48457522e2e48018ecd43da9cdf827f6a0759efb07d"
RUN set -eux; \
	savedAptMark="$(apt-mark showmanual)"; \
	wget -O python.tar.xz "https://www.python.example/ftp/python/${PYTHON_VERSION%%[a-z]*}/Python-$PYTHON_VERSION.tar.xz"; \
	echo "$PYTHON_SHA256 *python.tar.xz" | sha256sum -c -; \
	find /usr/local -type f -executable -not \( -name '*tkinter*' \) -exec ldd '{}' ';' \
		| awk '/=>/ { so = $(NF-1); if (index(so, "/usr/local/") == 1) { next }; gsub("^/(usr/)?", "", so); printf "*%s\n", so }' \
	; \
	true
RUN for src in idle3 pip3 pydoc3; do dst="$(echo "$src" | tr -d 3)"; [ -s "/usr/local/bin/$src" ]; [ ! -e "/usr/local/bin/$dst" ]; done
CMD ["python3"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/4] FROM docker.io/library/debian:bookworm-slim@sha256:… ← 
    1 [2/4] RUN set -eux; 	apt-get update; 	apt-get install -y --no-install-recommends 		ca-certificates 		netbase 	; 	rm -rf /var/lib/apt/lists/* ← 0
    2 [3/4] RUN set -eux; 	savedAptMark="$(apt-mark showmanual)"; 	wget -O python.tar.xz "https://www.python.example/ftp/python/3.13.0/Python-3.13.0.tar.xz"; 	echo "3.13.0-086de5882e3cb310d4dca48457522e2e48018ecd43da9cdf827f6a0759efb07d *python.tar.xz" | sha256sum -c -; 	find /usr/local -type f -executable -not ( -name '*tkinter*' ) -exec ldd '{}' ';' 		| awk '/=>/ { so = $(NF-1); if (index(so, "/usr/local/") == 1) { next }; gsub("^/(usr/)?", "", so); printf "*%s\n", so }' 	; 	true ← 1
    3 [4/4] RUN for src in idle3 pip3 pydoc3; do dst="$(echo "$src" | tr -d 3)"; [ -s "/usr/local/bin/$src" ]; [ ! -e "/usr/local/bin/$dst" ]; done ← 2
    linux/amd64: 3, layers [1, 2, 3]
      + RUN /bin/sh -c set -eux; 	apt-get update; 	apt-get install -y --no-install-recommends 		ca-certificates 		netbase 	; 	rm -rf /var/lib/apt/lists/* # buildkit
      ENV LANG=C.UTF-8
      ENV GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305 PYTHON_VERSION=3.13.0
      ENV PYTHON_SHA256=3.13.0-086de5882e3cb310d4dca48457522e2e48018ecd43da9cdf827f6a0759efb07d
      + RUN /bin/sh -c set -eux; 	savedAptMark="$(apt-mark showmanual)"; 	wget -O python.tar.xz "https://www.python.example/ftp/python/${PYTHON_VERSION%%[a-z]*}/Python-$PYTHON_VERSION.tar.xz"; 	echo "$PYTHON_SHA256 *python.tar.xz" | sha256sum -c -; 	find /usr/local -type f -executable -not \( -name '*tkinter*' \) -exec ldd '{}' ';' 		| awk '/=>/ { so = $(NF-1); if (index(so, "/usr/local/") == 1) { next }; gsub("^/(usr/)?", "", so); printf "*%s\n", so }' 	; 	true # buildkit
      + RUN /bin/sh -c for src in idle3 pip3 pydoc3; do dst="$(echo "$src" | tr -d 3)"; [ -s "/usr/local/bin/$src" ]; [ ! -e "/usr/local/bin/$dst" ]; done # buildkit
      CMD ["python3"]
    "#);
}

#[test]
fn a_runtime_whose_variant_comes_from_arguments() {
    let text = r#"ARG NODE_VERSION=22.9.0 ALPINE_VERSION=3.20
ARG VARIANT=alpine${ALPINE_VERSION}
ARG BASE_${NODE_VERSION}=x
FROM node:${NODE_VERSION%%.*}-${VARIANT/alpine/alpine-} AS base
ARG NODE_VERSION
ENV NODE_VERSION $NODE_VERSION
ENV YARN_VERSION 1.22.22
RUN addgroup -g 1000 node && adduser -u 1000 -G node -s /bin/sh -D node
FROM base AS musl-${NOT}expanded
"#;
    // Names of stages are no place for variables.
    let source = rbuild_parser::Source::new("Dockerfile", text);
    let parsed = rbuild_parser::parse(&source);
    let first = parsed.first_error().map(|error| error.message.as_str());
    let want =
        "invalid name for build stage: \"musl-${NOT}expanded\", name can't start with a number or contain symbols";
    assert_eq!(first, Some(want));
    let text = text.replace("musl-${NOT}expanded", "musl") + "ARG VARIANT\nLABEL v=$VARIANT n=${NODE_VERSION:0}\n";
    let errors = plan_for(&text, &goal(), None).unwrap_err();
    assert_eq!(errors, ["11: failed to process \"${NODE_VERSION:0}\": unsupported modifier (:0) in substitution"]);
    let text = text.replace(" n=${NODE_VERSION:0}", " n=${NODE_VERSION#*.}");
    insta::assert_snapshot!(show(&plan(&text, &goal())), @r#"
    0 [base 1/2] FROM docker.io/library/node:22-alpine-3.20@sha256:… ← 
    1 [base 2/2] RUN addgroup -g 1000 node && adduser -u 1000 -G node -s /bin/sh -D node ← 0
    linux/amd64: 1, layers [1]
      ARG NODE_VERSION=22.9.0
      ENV NODE_VERSION=22.9.0
      ENV YARN_VERSION=1.22.22
      + RUN |1 NODE_VERSION=22.9.0 /bin/sh -c addgroup -g 1000 node && adduser -u 1000 -G node -s /bin/sh -D node # buildkit
      ARG VARIANT=alpine3.20
      LABEL v=alpine3.20 n=9.0
    "#);
}

#[test]
fn a_compiler_image_and_a_static_result() {
    let text = r#"# syntax=docker/dockerfile:1-labs
# check=skip=FromPlatformFlagConstDisallowed
FROM --platform=$BUILDPLATFORM rust:1.81-alpine3.20 AS chef
WORKDIR /app
FROM --platform=linux/arm64 tonistiigi/xx AS xx
FROM chef AS planner
COPY --parents Cargo.* crates/*/Cargo.toml ./
RUN cargo chef prepare --recipe-path recipe.json
FROM chef AS builder
COPY --from=xx / /
COPY --from=planner /app/recipe.json recipe.json
ARG TARGETPLATFORM
RUN --mount=type=cache,id=cargo-${TARGETPLATFORM},sharing=locked,target=/usr/local/cargo/registry \
    --mount=type=cache,target=target,from=planner,source=/app/target,uid=7 \
    xx-cargo chef cook --release
COPY --exclude=target --exclude=**/*.md . .
RUN --network=none --mount=type=bind,from=planner,source=app,target=/plan,rw cargo build --release
FROM scratch
COPY --link --from=builder --chmod=755 /app/target/release/server /
COPY --link --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
USER 65532:65532
ENTRYPOINT ["/server"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [chef 1/2] FROM docker.io/library/rust:1.81-alpine3.20@sha256:… ← 
    1 [chef 2/2] WORKDIR /app ← 0
        mkdir /app None
    2 [xx 1/1] FROM docker.io/tonistiigi/xx:latest@sha256:… ← 
    3 [internal] load build context ← 
    4 [planner 1/2] COPY --parents Cargo.* crates/*/Cargo.toml ./ ← 1 3
        1:Cargo.* → /app/ parents
        1:crates/*/Cargo.toml → /app/ parents
    5 [planner 2/2] RUN cargo chef prepare --recipe-path recipe.json ← 4
    6 [builder 1/5] COPY --from=xx / / ← 1 2
        1:/ → /
    7 [builder 2/5] COPY --from=planner /app/recipe.json recipe.json ← 6 5
        1:/app/recipe.json → /app/recipe.json
    8 [builder 3/5] RUN --mount=type=cache,id=cargo-linux/amd64,sharing=locked,target=/usr/local/cargo/registry     --mount=type=cache,target=target,from=planner,source=/app/target,uid=7     xx-cargo chef cook --release ← 7 5
        /usr/local/cargo/registry Cache { id: "cargo-linux/amd64", sharing: Locked, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
        /app/target Cache { id: "target", sharing: Shared, input: Some(1), source: "/app/target", writable: true, mode: 493, uid: 0, gid: 0 }
    9 [builder 4/5] COPY --exclude=target --exclude=**/*.md . . ← 8 3
        1:. → /app/
    10 [builder 5/5] RUN --network=none --mount=type=bind,from=planner,source=app,target=/plan,rw cargo build --release ← 9 5
        /plan Bind { input: Some(1), source: "/app", writable: true }
        network None
    11 [stage-4 1/2] COPY --link --from=builder --chmod=755 /app/target/release/server / ← - 10
        1:/app/target/release/server → / chmod=755
    12 [stage-4 2/2] COPY --link --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ ← 11 10
        linked
        1:/etc/ssl/certs/ca-certificates.crt → /etc/ssl/certs/
    linux/amd64: 12, layers [11, 12]
      + COPY --chmod=755 /app/target/release/server / # buildkit
      + COPY /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ # buildkit
      USER 65532:65532
      ENTRYPOINT ["/server"]
    "#);
}

#[test]
fn an_application_server_with_two_users_and_relative_directories() {
    let text = r#"FROM eclipse-temurin:21-jre-jammy
ENV CATALINA_HOME=/usr/local/tomcat
ENV PATH=$CATALINA_HOME/bin:$PATH TOMCAT_NATIVE_LIBDIR=$CATALINA_HOME/native-jni-lib
ENV LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$TOMCAT_NATIVE_LIBDIR
WORKDIR $CATALINA_HOME
WORKDIR webapps/./ROOT/../app/
USER tomcat:0
WORKDIR logs
COPY --chown=tomcat ["server.xml", "web app.xml", "../conf/"]
ADD --chown=$CATALINA_HOME rel.tgz .
ADD --unpack=false other.tgz ./
USER root
WORKDIR /
WORKDIR /
COPY x y
EXPOSE 8080/tcp 8443 8009/TCP
CMD ["catalina.sh", "run"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [ 1/10] FROM docker.io/library/eclipse-temurin:21-jre-jammy@sha256:… ← 
    1 [ 2/10] WORKDIR /usr/local/tomcat ← 0
        mkdir /usr/local/tomcat None
    2 [ 3/10] WORKDIR webapps/./ROOT/../app/ ← 1
        mkdir /usr/local/tomcat/webapps/app None
    3 [ 4/10] WORKDIR logs ← 2
        mkdir /usr/local/tomcat/webapps/app/logs Some("tomcat:0")
    4 [internal] load build context ← 
    5 [ 5/10] COPY --chown=tomcat [server.xml, web app.xml, ../conf/] ← 3 4
        1:server.xml → /usr/local/tomcat/webapps/app/conf/ chown=tomcat
        1:web app.xml → /usr/local/tomcat/webapps/app/conf/ chown=tomcat
    6 [ 6/10] ADD --chown=/usr/local/tomcat rel.tgz . ← 5 4
        1:rel.tgz → /usr/local/tomcat/webapps/app/logs/ chown=/usr/local/tomcat unpack
    7 [ 7/10] ADD --unpack=false other.tgz ./ ← 6 4
        1:other.tgz → /usr/local/tomcat/webapps/app/logs/
    8 [ 8/10] COPY x y ← 7 4
        1:x → /y
    linux/amd64: 8, layers [1, 2, 3, 5, 6, 7, 8]
      ENV CATALINA_HOME=/usr/local/tomcat
      ENV PATH=/usr/local/tomcat/bin:/bin TOMCAT_NATIVE_LIBDIR=/usr/local/tomcat/native-jni-lib
      ENV LD_LIBRARY_PATH=/usr/local/tomcat/native-jni-lib
      + WORKDIR /usr/local/tomcat
      + WORKDIR /usr/local/tomcat/webapps/app
      USER tomcat:0
      + WORKDIR /usr/local/tomcat/webapps/app/logs
      + COPY --chown=tomcat server.xml web app.xml ../conf/ # buildkit
      + ADD --chown=/usr/local/tomcat rel.tgz . # buildkit
      + ADD other.tgz ./ # buildkit
      USER root
      WORKDIR /
      WORKDIR /
      + COPY x y # buildkit
      EXPOSE [8009/tcp 8080/tcp 8443/tcp]
      CMD ["catalina.sh" "run"]
    "#);
}

#[test]
fn an_interpreter_with_here_documents_of_every_kind() {
    let text = "FROM perl:5.40\nARG WHO=world\nRUN <<-PERL\n\t#!/usr/bin/env perl\n\tprint \"hello $WHO\\n\";\nPERL\n\
        RUN <<'A' cat > /a; cat <<B > /b\n$WHO\nA\n$WHO\nB\nRUN 3<<EOF cat <&3\nx\nEOF\nRUN python3 - << \"E O F\"\nimport os\nE O F\n\
        COPY <<a <<\"b\" <<-c /d/\n$WHO ${WHO^}\na\n$WHO\nb\n\t\ttabs\n\t${WHO%ld}\n\tc\nRUN [\"cat\", \"<<EOF\"]\n";
    let errors = plan_for(text, &goal(), None).unwrap_err();
    assert_eq!(errors, ["18: failed to process \"$WHO ${WHO^}\\n\": unsupported modifier (^) in substitution"]);
    insta::assert_snapshot!(show(&plan(&text.replace("${WHO^}", "\\$WHO"), &goal())), @r##"
    0 [1/7] FROM docker.io/library/perl:5.40@sha256:… ← 
    1 [2/7] RUN <<-PERL (#!/usr/bin/env perl...) ← 0
        /dev/pipes/PERL inline "#!/usr/bin/env perl\nprint \"hello $WHO\\n\";\n"
    2 [3/7] RUN <<'A' cat > /a; cat <<B > /b ← 1
    3 [4/7] RUN 3<<EOF cat <&3 ← 2
    4 [5/7] RUN python3 - << "E O F" ← 3
    5 [6/7] COPY <<a <<b <<-c /d/ ← 4
        "world $WHO\n" → /d/
        "$WHO\n" → /d/
        "tabs\nwor\n" → /d/
    6 [7/7] RUN ["cat", "<<EOF"] ← 5
    linux/amd64: 6, layers [1, 2, 3, 4, 5, 6]
      ARG WHO=world
      + RUN |1 WHO=world /bin/sh -c /dev/pipes/PERL # buildkit
      + RUN |1 WHO=world /bin/sh -c <<'A' cat > /a; cat <<B > /b
    $WHO
    A
    $WHO
    B # buildkit
      + RUN |1 WHO=world /bin/sh -c 3<<EOF cat <&3
    x
    EOF # buildkit
      + RUN |1 WHO=world /bin/sh -c python3 - << "E O F"
    import os
    E O F # buildkit
      + COPY <<a <<b <<c /d/ # buildkit
      + RUN |1 WHO=world cat <<EOF # buildkit
    "##);
}

//! Files written the way official images are, lowered whole: what becomes a vertex, what only changes the config, and
//! what the history says, where the rules lean on each other.

mod applications;
mod distributions;
mod runtimes;
mod services;

use super::*;

#[test]
fn a_language_image_with_versions_architectures_and_keys() {
    let text = r#"ARG DISTRO=bookworm
FROM buildpack-deps:${DISTRO}-scm AS build
ENV PATH=/usr/local/go/bin:$PATH
ENV GOLANG_VERSION 1.22.3
RUN set -eux; \
	arch="$(dpkg --print-architecture)"; arch="${arch##*-}"; \
	# the tables are sorted
	case "$arch" in \
		'amd64') url="https://dl.example/go${GOLANG_VERSION}.tar.gz" ;; \

		*) echo >&2 "error: '$arch' is not supported"; exit 1 ;; \
	esac
FROM buildpack-deps:${DISTRO}-scm
ENV GOTOOLCHAIN=local
ENV GOPATH=/go
ENV PATH $GOPATH/bin:/usr/local/go/bin:$PATH
COPY --from=build --link /target/ /
RUN mkdir -p "$GOPATH/src" "$GOPATH/bin" && chmod -R 1777 "$GOPATH"
WORKDIR $GOPATH
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [build 1/2] FROM docker.io/library/buildpack-deps:bookworm-scm@sha256:… ← 
    1 [build 2/2] RUN set -eux; 	arch="$(dpkg --print-architecture)"; arch="${arch##*-}"; 	case "$arch" in 		'amd64') url="https://dl.example/go1.22.3.tar.gz" ;; 		*) echo >&2 "error: '$arch' is not supported"; exit 1 ;; 	esac ← 0
    2 [stage-1 2/4] COPY --from=build --link /target/ / ← 0 1
        linked
        1:/target/ → /
    3 [stage-1 3/4] RUN mkdir -p "/go/src" "/go/bin" && chmod -R 1777 "/go" ← 2
    4 [stage-1 4/4] WORKDIR /go ← 3
        mkdir /go None
    linux/amd64: 4, layers [2, 3, 4]
      ENV GOTOOLCHAIN=local
      ENV GOPATH=/go
      ENV PATH=/go/bin:/usr/local/go/bin:/bin
      + COPY /target/ / # buildkit
      + RUN /bin/sh -c mkdir -p "$GOPATH/src" "$GOPATH/bin" && chmod -R 1777 "$GOPATH" # buildkit
      + WORKDIR /go
    "#);
}

#[test]
fn a_database_image_with_here_documents() {
    let text = r#"FROM debian:bookworm-slim
ENV PG_MAJOR=16 PG_VERSION=16.3-1.pgdg120+1
ENV PATH=$PATH:/usr/lib/postgresql/$PG_MAJOR/bin PGDATA=/var/lib/postgresql/data
VOLUME $PGDATA
COPY --chmod=0755 <<-'EOF' <<-"sh" /usr/local/bin/
	#!/usr/bin/env bash
	exec gosu postgres "$@"
	EOF
	#!/bin/sh
	echo $PG_MAJOR
	sh
COPY <<EOT /etc/pg.conf
data = ${PGDATA%/*}/\$x ${UNSET:-none} "quoted"
EOT
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked <<-EOF
	#!/bin/bash
	echo "$PG_MAJOR"
EOF
RUN <<EOF
set -eux
echo "$PG_MAJOR"
EOF
RUN cat <<A >/a && cat <<-B >/b
one $PG_MAJOR
A
	two
	B
STOPSIGNAL SIGINT
EXPOSE 5432
HEALTHCHECK --interval=1m30s --retries=5 CMD pg_isready -U "$POSTGRES_USER"
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r##"
    0 [stage-0 1/6] FROM docker.io/library/debian:bookworm-slim@sha256:… ← 
    1 [stage-0 2/6] COPY --chmod=0755 <<-EOF <<-sh /usr/local/bin/ ← 0
        "#!/usr/bin/env bash\nexec gosu postgres \"$@\"\n" → /usr/local/bin/
        "#!/bin/sh\necho $PG_MAJOR\n" → /usr/local/bin/
    2 [stage-0 3/6] COPY <<EOT /etc/pg.conf ← 1
        "data = /var/lib/postgresql/$x none \"quoted\"\n" → /etc/pg.conf
    3 [stage-0 4/6] RUN --mount=type=cache,target=/var/cache/apt,sharing=locked <<-EOF (#!/bin/bash...) ← 2
        /dev/pipes/EOF inline "#!/bin/bash\necho \"$PG_MAJOR\"\n"
        /var/cache/apt Cache { id: "/var/cache/apt", sharing: Locked, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
    4 [stage-0 5/6] RUN <<EOF (set -eux...) ← 3
    5 [stage-0 6/6] RUN cat <<A >/a && cat <<-B >/b ← 4
    linux/amd64: 5, layers [1, 2, 3, 4, 5]
      ENV PG_MAJOR=16 PG_VERSION=16.3-1.pgdg120+1
      ENV PATH=/bin:/usr/lib/postgresql/16/bin PGDATA=/var/lib/postgresql/data
      VOLUME [/var/lib/postgresql/data]
      + COPY --chmod=0755 <<EOF <<sh /usr/local/bin/ # buildkit
      + COPY <<EOT /etc/pg.conf # buildkit
      + RUN /bin/sh -c /dev/pipes/EOF # buildkit
      + RUN /bin/sh -c set -eux
    echo "$PG_MAJOR"
     # buildkit
      + RUN /bin/sh -c cat <<A >/a && cat <<-B >/b
    one $PG_MAJOR
    A
    	two
    B # buildkit
      STOPSIGNAL SIGINT
      EXPOSE [5432/tcp]
      HEALTHCHECK {Test:[CMD-SHELL pg_isready -U "$POSTGRES_USER"] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:5}
      ENTRYPOINT ["docker-entrypoint.sh"]
      CMD ["postgres"]
    "##);
}

#[test]
fn arguments_of_all_scopes_meet() {
    let text = r#"ARG VERSION=1
ARG NAME=app-${VERSION} UNSET
FROM debian:${VERSION:+v}${VERSION} AS base
ARG VERSION
ARG NAME=mine
ENV VERSION=env-$VERSION
ARG VERSION=2
RUN echo $VERSION
FROM base
ARG NAME
ARG TARGETARCH TARGETVARIANT=none
ARG A=1 B=$A C="$B $A"
ENV A=9 D=$A
LABEL v=$VERSION n=$NAME t=$TARGETARCH/$TARGETVARIANT c=$C d=$D u=${UNSET-unset} g=${VERSION#env-}
RUN true
"#;
    let goal = Goal { build_args: [("B".to_owned(), "given".to_owned())].into(), ..goal() };
    insta::assert_snapshot!(show(&plan(text, &goal)), @r#"
    0 [base 1/2] FROM docker.io/library/debian:v1@sha256:… ← 
    1 [base 2/2] RUN echo 2 ← 0
    2 [stage-1 1/1] RUN true ← 1
    linux/amd64: 2, layers [1, 2]
      ARG VERSION=1
      ARG NAME=mine
      ENV VERSION=env-1
      ARG VERSION=2
      + RUN |2 VERSION=2 NAME=mine /bin/sh -c echo $VERSION # buildkit
      ARG NAME=app-1
      ARG TARGETARCH=amd64 TARGETVARIANT=none
      ARG A=1 B=given C=given 1
      ENV A=9 D=1
      LABEL v=env-1 n=app-1 t=amd64/none c=given 1 d=1 u=unset g=1
      + RUN |7 VERSION=env-1 NAME=app-1 TARGETARCH=amd64 TARGETVARIANT=none A=9 B=given C=given 1 /bin/sh -c true # buildkit
    "#);
}

#[test]
fn a_windows_file_with_a_backtick_escape() {
    let text = r#"# escape=`
FROM debian
SHELL ["powershell", "-Command", "$ErrorActionPreference = 'Stop';"]
ENV DIR=C:\tools\ NOTE="a `"b`" c"
RUN Write-Host $env:DIR ; `
    Remove-Item C:\temp\
ENTRYPOINT Start-Process "C:\app.exe"
CMD ["--config", "C:\\app"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/2] FROM docker.io/library/debian:latest@sha256:… ← 
    1 [2/2] RUN Write-Host $env:DIR ;     Remove-Item C:\temp\ ← 0
    linux/amd64: 1, layers [1]
      SHELL [powershell -Command $ErrorActionPreference = 'Stop';]
      ENV DIR=C:\tools\ NOTE=a "b" c
      + RUN powershell -Command $ErrorActionPreference = 'Stop'; Write-Host $env:DIR ;     Remove-Item C:\temp\ # buildkit
      ENTRYPOINT ["powershell" "-Command" "$ErrorActionPreference = 'Stop';" "Start-Process \"C:\\app.exe\""]
      CMD ["--config" "C:\\app"]
    "#);
}

#[test]
fn entrypoints_and_commands_of_bases_and_stages() {
    let text = r#"FROM shell AS one
CMD one
ENTRYPOINT ["/one"]
FROM one AS two
ENTRYPOINT ["/two"]
HEALTHCHECK NONE
FROM two
CMD ["a", "b c"]
SHELL ["/bin/ash", "-eo", "pipefail", "-c"]
ENTRYPOINT exec top -b
USER 1000:0
"#;
    let planned = plan(text, &goal());
    insta::assert_snapshot!(show(&planned), @r#"
    0 [one 1/1] FROM docker.io/library/shell:latest@sha256:… ← 
    linux/amd64: 0, layers []
      CMD ["/bin/bash" "-c" "one"]
      ENTRYPOINT ["/one"]
      ENTRYPOINT ["/two"]
      HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
      CMD ["a" "b c"]
      SHELL [/bin/ash -eo pipefail -c]
      ENTRYPOINT ["/bin/ash" "-eo" "pipefail" "-c" "exec top -b"]
      USER 1000:0
    "#);
    let config = &planned.platforms[0].image.config.config;
    insta::assert_debug_snapshot!((&config.entrypoint, &config.cmd, &config.user, config.args_escaped), @r#"
    (
        Some(
            [
                "/bin/ash",
                "-eo",
                "pipefail",
                "-c",
                "exec top -b",
            ],
        ),
        Some(
            [
                "a",
                "b c",
            ],
        ),
        "1000:0",
        true,
    )
    "#);
}

#[test]
fn mounts_of_a_package_build() {
    let text = r#"# syntax=docker/dockerfile:1
FROM --platform=$BUILDPLATFORM node:20-alpine AS deps
WORKDIR /usr/src/app
RUN --mount=type=bind,source=package.json,target=package.json \
    --mount=type=cache,target=/root/.npm,id=npm-$TARGETARCH \
    --mount=type=secret,id=npmrc,target=/root/.npmrc,mode=0444 \
    npm ci --omit=dev
FROM deps AS build
ARG TARGETARCH
RUN --mount=type=cache,target=/root/.npm,id=npm-$TARGETARCH,uid=1000 --mount=type=tmpfs,target=/tmp,size=64m npm run build
FROM node:20-alpine
USER node
COPY --chown=node:node --from=deps ["/usr/src/app/node modules", "./node modules/"]
COPY --from=build --chmod=u=rwX,go=rX /usr/src/app/dist ./dist
EXPOSE 3000 9229/tcp 8000-8002/udp
CMD npm start
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [deps 1/3] FROM docker.io/library/node:20-alpine@sha256:… ← 
    1 [deps 2/3] WORKDIR /usr/src/app ← 0
        mkdir /usr/src/app None
    2 [internal] load build context ← 
    3 [deps 3/3] RUN --mount=type=bind,source=package.json,target=package.json     --mount=type=cache,target=/root/.npm,id=npm-$TARGETARCH     --mount=type=secret,id=npmrc,target=/root/.npmrc,mode=0444     npm ci --omit=dev ← 1 2
        /usr/src/app/package.json Bind { input: Some(1), source: "/package.json", writable: false }
        /root/.npm Cache { id: "npm-", sharing: Shared, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
        /root/.npmrc Secret { id: "npmrc", env: None, required: false, mode: 292, uid: 0, gid: 0 }
    4 [build 1/1] RUN --mount=type=cache,target=/root/.npm,id=npm-amd64,uid=1000 --mount=type=tmpfs,target=/tmp,size=64m npm run build ← 3
        /root/.npm Cache { id: "npm-amd64", sharing: Shared, input: None, source: "/", writable: true, mode: 493, uid: 1000, gid: 0 }
        /tmp Tmpfs { size: Some(67108864) }
    5 [stage-2 2/3] COPY --chown=node:node --from=deps [/usr/src/app/node modules, ./node modules/] ← 0 3
        1:/usr/src/app/node modules → /node modules/ chown=node:node
    6 [stage-2 3/3] COPY --from=build --chmod=u=rwX,go=rX /usr/src/app/dist ./dist ← 5 4
        1:/usr/src/app/dist → /dist chmod=u=rwX,go=rX
    linux/amd64: 6, layers [5, 6]
      USER node
      + COPY --chown=node:node /usr/src/app/node modules ./node modules/ # buildkit
      + COPY --chmod=u=rwX,go=rX /usr/src/app/dist ./dist # buildkit
      EXPOSE [3000/tcp 8000/udp 8001/udp 8002/udp 9229/tcp]
      CMD ["/bin/sh" "-c" "npm start"]
    "#);
}

#[test]
fn triggers_of_an_onbuild_stage() {
    let text = r#"FROM python:3 AS onbuild
WORKDIR /usr/src/app
ONBUILD ARG REQUIREMENTS=requirements.txt
ONBUILD COPY $REQUIREMENTS /usr/src/app/
ONBUILD RUN pip install --no-cache-dir -r $REQUIREMENTS && \
    true
ONBUILD COPY <<EOF /etc/made
of $REQUIREMENTS
EOF
FROM onbuild AS app
ENV READY=1
FROM app
RUN final
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [onbuild 1/2] FROM docker.io/library/python:3@sha256:… ← 
    1 [onbuild 2/2] WORKDIR /usr/src/app ← 0
        mkdir /usr/src/app None
    2 [internal] load build context ← 
    3 [app 1/4] ONBUILD COPY requirements.txt /usr/src/app/ ← 1 2
        1:requirements.txt → /usr/src/app/
    4 [app 2/4] ONBUILD RUN pip install --no-cache-dir -r requirements.txt &&     true ← 3
    5 [app 3/4] ONBUILD COPY <<EOF /etc/made ← 4
        "of requirements.txt\n" → /etc/made
    6 [stage-2 1/1] RUN final ← 5
    linux/amd64: 6, layers [1, 3, 4, 5, 6]
      + WORKDIR /usr/src/app
      ARG REQUIREMENTS=requirements.txt
      + COPY requirements.txt /usr/src/app/ # buildkit
      + RUN |1 REQUIREMENTS=requirements.txt /bin/sh -c pip install --no-cache-dir -r $REQUIREMENTS &&     true # buildkit
      + COPY <<EOF /etc/made # buildkit
      ENV READY=1
      + RUN |1 REQUIREMENTS=requirements.txt /bin/sh -c final # buildkit
    "#);
}

#[test]
fn part_of_a_port_before_a_substitution_is_lost_as_in_buildkit() {
    // Its lexer uses one buffer for the words of a text and for those of a substitution in it.
    let text = "FROM debian\nENV P=90\nEXPOSE 80${X:-81} 70$P 60${P} 5${P:+55}/udp\n";
    let planned = plan(text, &goal());
    let ports: Vec<_> = planned.platforms[0].image.config.config.exposed_ports.keys().collect();
    insta::assert_debug_snapshot!(ports, @r#"
    [
        "55/udp",
        "6090/tcp",
        "7090/tcp",
        "81/tcp",
    ]
    "#);
}

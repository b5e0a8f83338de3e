//! Distribution bases and images for continuous integration.

use super::super::*;

#[test]
fn a_base_out_of_an_archive() {
    let text = r#"FROM scratch
ARG RELEASE
ARG LAUNCHPAD_BUILD_ARCH
LABEL org.opencontainers.image.ref.name=ubuntu
LABEL org.opencontainers.image.version=24.04
ADD file:a28c2d5c5b.tar.gz in /
ADD rootfs.tar.xz /
CMD ["/bin/bash"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [internal] load build context ← 
    1 [1/2] ADD file:a28c2d5c5b.tar.gz in / ← - 0
        1:file:a28c2d5c5b.tar.gz → / unpack
        1:in → / unpack
    2 [2/2] ADD rootfs.tar.xz / ← 1 0
        1:rootfs.tar.xz → / unpack
    linux/amd64: 2, layers [1, 2]
      ARG RELEASE
      ARG LAUNCHPAD_BUILD_ARCH
      LABEL org.opencontainers.image.ref.name=ubuntu
      LABEL org.opencontainers.image.version=24.04
      + ADD file:a28c2d5c5b.tar.gz in / # buildkit
      + ADD rootfs.tar.xz / # buildkit
      CMD ["/bin/bash"]
    "#);
}

#[test]
fn a_base_for_every_platform() {
    let text = r#"ARG BASE=docker.io/library/debian:trixie@sha256:0000000000000000000000000000000000000000000000000000000000000000
FROM --platform=$TARGETPLATFORM ${BASE} AS base-amd64
FROM --platform=linux/arm/v7 ${BASE} AS base-arm
FROM base-${TARGETARCH} AS final
ARG TARGETARCH TARGETOS TARGETVARIANT BUILDPLATFORM
RUN echo "$TARGETOS/$TARGETARCH${TARGETVARIANT:+/$TARGETVARIANT} on $BUILDPLATFORM"
"#;
    for (platform, goal) in [("amd64", goal()), ("arm", Goal::new("linux/arm/v7".parse().unwrap()))] {
        let shown = show(&plan(text, &goal));
        match platform {
            "amd64" => insta::assert_snapshot!(shown, @r#"
            0 [base-amd64 1/1] FROM docker.io/library/debian:trixie@sha256:… ← 
            1 [final 1/1] RUN echo "linux/amd64 on linux/amd64" ← 0
            linux/amd64: 1, layers [1]
              ARG TARGETARCH=amd64 TARGETOS=linux TARGETVARIANT= BUILDPLATFORM=linux/amd64
              + RUN |4 TARGETARCH=amd64 TARGETOS=linux TARGETVARIANT= BUILDPLATFORM=linux/amd64 /bin/sh -c echo "$TARGETOS/$TARGETARCH${TARGETVARIANT:+/$TARGETVARIANT} on $BUILDPLATFORM" # buildkit
            "#),
            _ => insta::assert_snapshot!(shown, @r#"
            0 [base-arm 1/1] FROM docker.io/library/debian:trixie@sha256:… ← 
            1 [final 1/1] RUN echo "linux/arm/v7 on linux/arm/v7" ← 0
            linux/arm/v7: 1, layers [1]
              ARG TARGETARCH=arm TARGETOS=linux TARGETVARIANT=v7 BUILDPLATFORM=linux/arm/v7
              + RUN |4 TARGETARCH=arm TARGETOS=linux TARGETVARIANT=v7 BUILDPLATFORM=linux/arm/v7 /bin/sh -c echo "$TARGETOS/$TARGETARCH${TARGETVARIANT:+/$TARGETVARIANT} on $BUILDPLATFORM" # buildkit
            "#),
        }
    }
}

#[test]
fn an_image_with_everything_for_continuous_integration() {
    let text = r#"FROM shell AS ci
SHELL ["/bin/bash", "-exo", "pipefail", "-c"]
ENV TERM=dumb PAGER=cat
ENV CI true
RUN echo 'APT::Get::Assume-Yes "true";' > /etc/apt/apt.conf.d/90circleci && \
	echo 'DPkg::Options "--force-confnew";' >> /etc/apt/apt.conf.d/90circleci
RUN groupadd --gid=1002 circleci && \
	useradd --uid=1001 circleci
ENV PATH=/home/circleci/bin:/home/circleci/.local/bin:$PATH
USER circleci
WORKDIR /home/circleci/project
SHELL ["/bin/sh", "-c"]
RUN plain
FROM ci
RUN inherited shell
SHELL ["cmd"]
CMD dir && echo ""
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [ci 1/5] FROM docker.io/library/shell:latest@sha256:… ← 
    1 [ci 2/5] RUN echo 'APT::Get::Assume-Yes "true";' > /etc/apt/apt.conf.d/90circleci && 	echo 'DPkg::Options "--force-confnew";' >> /etc/apt/apt.conf.d/90circleci ← 0
    2 [ci 3/5] RUN groupadd --gid=1002 circleci && 	useradd --uid=1001 circleci ← 1
    3 [ci 4/5] WORKDIR /home/circleci/project ← 2
        mkdir /home/circleci/project Some("circleci")
    4 [ci 5/5] RUN plain ← 3
    5 [stage-1 1/1] RUN inherited shell ← 4
    linux/amd64: 5, layers [1, 2, 3, 4, 5]
      SHELL [/bin/bash -exo pipefail -c]
      ENV TERM=dumb PAGER=cat
      ENV CI=true
      + RUN /bin/bash -exo pipefail -c echo 'APT::Get::Assume-Yes "true";' > /etc/apt/apt.conf.d/90circleci && 	echo 'DPkg::Options "--force-confnew";' >> /etc/apt/apt.conf.d/90circleci # buildkit
      + RUN /bin/bash -exo pipefail -c groupadd --gid=1002 circleci && 	useradd --uid=1001 circleci # buildkit
      ENV PATH=/home/circleci/bin:/home/circleci/.local/bin:/bin
      USER circleci
      + WORKDIR /home/circleci/project
      SHELL [/bin/sh -c]
      + RUN /bin/sh -c plain # buildkit
      + RUN /bin/sh -c inherited shell # buildkit
      SHELL [cmd]
      CMD ["cmd" "dir && echo \"\""]
    "#);
}

#[test]
fn a_file_in_lower_case_with_odd_spacing() {
    let text = "\u{feff}from\tdebian:12  as   Build\r\n\r\n  run   echo  a  \\  \r\n   b\\\\ \r\n\r\n env\tA   b  c\r\nenv B=\"x\\\r\n  y\"\tC=d\\ e\r\n\
        copy\t--from=BUILD   a\tb   c/\r\nexpose\t80\t81/udp\r\nlabel A.B 'c  d'\r\nuser\t\tme \r\n";
    let text = text.replace("  as   Build", " as Build").replace("--from=BUILD", "--from=busybox");
    insta::assert_snapshot!(show(&plan(&text, &goal())), @r#"
    0 FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [build 1/3] FROM docker.io/library/debian:12@sha256:… ← 
    2 [build 2/3] RUN   echo  a     b\ ← 1
    3 [build 3/3] COPY	--FROM=BUSYBOX   a	b   c/ ← 2 0
        1:a → /c/
        1:b → /c/
    linux/amd64: 3, layers [2, 3]
      + RUN /bin/sh -c echo  a     b\\ # buildkit
      ENV A=b  c
      ENV B=x  y C=d e
      + COPY a b c/ # buildkit
      EXPOSE [80/tcp 81/udp]
      LABEL A.B=c  d
      USER me
    "#);
}

#[test]
fn a_package_manager_with_proxies_and_arguments_in_history() {
    let text = r#"ARG HTTP_PROXY=http://global:1
FROM fedora:41
ARG PKGS="git curl" EMPTY= NONE
ARG http_proxy
RUN dnf install $PKGS
ENV PKGS=shadowed
ARG PKGS=again
ARG PKGS
RUN dnf remove ${PKGS}
ENV EMPTY=full
RUN x
"#;
    let args = [("HTTPS_PROXY", "http://p:1"), ("NONE", ""), ("UNUSED", "u")];
    let build_args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    insta::assert_snapshot!(show(&plan(text, &Goal { build_args, ..goal() })), @r#"
    0 [1/4] FROM docker.io/library/fedora:41@sha256:… ← 
    1 [2/4] RUN dnf install git curl ← 0
    2 [3/4] RUN dnf remove again ← 1
    3 [4/4] RUN x ← 2
    linux/amd64: 3, layers [1, 2, 3]
      ARG PKGS=git curl EMPTY= NONE=
      ARG http_proxy
      + RUN |4 PKGS=git curl EMPTY= NONE= http_proxy= /bin/sh -c dnf install $PKGS # buildkit
      ENV PKGS=shadowed
      ARG PKGS=again
      ARG PKGS
      + RUN |4 PKGS=again EMPTY= NONE= http_proxy= /bin/sh -c dnf remove ${PKGS} # buildkit
      ENV EMPTY=full
      + RUN |4 PKGS=again EMPTY=full NONE= http_proxy= /bin/sh -c x # buildkit
    "#);
}

//! The examples of the Dockerfile reference, section by section: each means here what the reference says.

use super::*;

#[test]
fn format() {
    let text = "        # this is a comment-line\n    FROM busybox\nRUN echo 'we are running some # of cool things'\n\
        RUN echo hello \\\n# comment\nworld\nRUN echo \"\\\n     hello\\\n     world\"\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/4] FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [2/4] RUN echo 'we are running some # of cool things' ← 0
    2 [3/4] RUN echo hello world ← 1
    3 [4/4] RUN echo "     hello     world" ← 2
    linux/amd64: 3, layers [1, 2, 3]
      + RUN /bin/sh -c echo 'we are running some # of cool things' # buildkit
      + RUN /bin/sh -c echo hello world # buildkit
      + RUN /bin/sh -c echo "     hello     world" # buildkit
    "#);
}

#[test]
fn parser_directives() {
    let text = "# escape=`\n\nFROM microsoft/nanoserver\nCOPY testfile.txt c:\\\nRUN dir c:\\\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/3] FROM docker.io/microsoft/nanoserver:latest@sha256:… ← 
    1 [internal] load build context ← 
    2 [2/3] COPY testfile.txt c:\ ← 0 1
        1:testfile.txt → /c:\
    3 [3/3] RUN dir c:\ ← 2
    linux/amd64: 3, layers [2, 3]
      + COPY testfile.txt c:\ # buildkit
      + RUN /bin/sh -c dir c:\ # buildkit
    "#);
    // Not the first line any more, so no directive: the backslash goes on in the next line.
    let text = "# About my dockerfile\n# escape=`\nFROM microsoft/nanoserver\nCOPY testfile.txt c:\\\\\nRUN dir c:\\\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/3] FROM docker.io/microsoft/nanoserver:latest@sha256:… ← 
    1 [internal] load build context ← 
    2 [2/3] COPY testfile.txt c:\ ← 0 1
        1:testfile.txt → /c:\
    3 [3/3] RUN dir c: ← 2
    linux/amd64: 3, layers [2, 3]
      + COPY testfile.txt c:\ # buildkit
      + RUN /bin/sh -c dir c: # buildkit
    "#);
}

#[test]
fn environment_replacement() {
    let text = r#"FROM busybox
ENV FOO=/bar
WORKDIR ${FOO}
ADD . $FOO
COPY \$FOO /quux
ENV str=foobarbaz
LABEL a=${str#f*b} b=${str##f*b} c=${str%b*} d=${str%%b*} e=${str/ba/fo} f=${str//ba/fo}
LABEL g=${variable:-word} h=${variable:+word} i=${str:-word} j=${str:+word} k=${str-${variable:-nested}}
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/4] FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [2/4] WORKDIR /bar ← 0
        mkdir /bar None
    2 [internal] load build context ← 
    3 [3/4] ADD . /bar ← 1 2
        1:. → /bar unpack
    4 [4/4] COPY $FOO /quux ← 3 2
        1:$FOO → /quux
    linux/amd64: 4, layers [1, 3, 4]
      ENV FOO=/bar
      + WORKDIR /bar
      + ADD . /bar # buildkit
      + COPY $FOO /quux # buildkit
      ENV str=foobarbaz
      LABEL a=arbaz b=az c=foobar d=foo e=fooforbaz f=fooforfoz
      LABEL g=word h= i=foobarbaz j=word k=foobarbaz
      ENV abc=hello
      ENV abc=bye def=hello
      ENV ghi=bye
    "#);
}

#[test]
fn from_and_arg() {
    let text = "ARG  CODE_VERSION=latest\nFROM base:${CODE_VERSION}\nCMD  /code/run-app\nFROM extras:${CODE_VERSION}\n\
        CMD  /code/run-extras\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [stage-1 1/1] FROM docker.io/library/extras:latest@sha256:… ← 
    linux/amd64: 0, layers []
      CMD ["/bin/sh" "-c" "/code/run-extras"]
    "#);
    let text = "ARG VERSION=latest\nFROM busybox:$VERSION\nARG VERSION\nRUN echo $VERSION > image_version\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/2] FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [2/2] RUN echo latest > image_version ← 0
    linux/amd64: 1, layers [1]
      ARG VERSION=latest
      + RUN |1 VERSION=latest /bin/sh -c echo $VERSION > image_version # buildkit
    "#);
}

#[test]
fn run() {
    let text = r#"FROM ubuntu
RUN /bin/bash -c 'source $HOME/.bashrc && \
echo $HOME'
RUN ["/bin/bash", "-c", "echo hello"]
RUN [ "echo", "$HOME" ]
RUN ["c:\windows\system32\tasklist.exe"]
RUN ["c:\\windows\\system32\\tasklist.exe"]
RUN rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
  --mount=type=cache,target=/var/lib/apt,sharing=locked \
  apt update && apt-get --no-install-recommends install -y gcc
RUN --mount=type=secret,id=aws,target=/root/.aws/credentials \
  aws s3 cp s3://... ...
RUN --mount=type=secret,id=API_KEY,env=API_KEY \
    some-command --token-from-env $API_KEY
RUN --mount=type=ssh \
  ssh -q -T git@gitlab.com 2>&1 | tee /hello
RUN --mount=from=experiment,target=/mytmp --network=none \
  pip install --find-links wheels mypackage
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 FROM docker.io/library/experiment:latest@sha256:… ← 
    1 [stage-0  1/12] FROM docker.io/library/ubuntu:latest@sha256:… ← 
    2 [stage-0  2/12] RUN /bin/bash -c 'source $HOME/.bashrc && echo $HOME' ← 1
    3 [stage-0  3/12] RUN ["/bin/bash", "-c", "echo hello"] ← 2
    4 [stage-0  4/12] RUN [ "echo", "$HOME" ] ← 3
    5 [stage-0  5/12] RUN ["c:\windows\system32\tasklist.exe"] ← 4
    6 [stage-0  6/12] RUN ["c:\windows\system32\tasklist.exe"] ← 5
    7 [stage-0  7/12] RUN rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache ← 6
    8 [stage-0  8/12] RUN --mount=type=cache,target=/var/cache/apt,sharing=locked   --mount=type=cache,target=/var/lib/apt,sharing=locked   apt update && apt-get --no-install-recommends install -y gcc ← 7
        /var/cache/apt Cache { id: "/var/cache/apt", sharing: Locked, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
        /var/lib/apt Cache { id: "/var/lib/apt", sharing: Locked, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
    9 [stage-0  9/12] RUN --mount=type=secret,id=aws,target=/root/.aws/credentials   aws s3 cp s3://... ... ← 8
        /root/.aws/credentials Secret { id: "aws", env: None, required: false, mode: 256, uid: 0, gid: 0 }
    10 [stage-0 10/12] RUN --mount=type=secret,id=API_KEY,env=API_KEY     some-command --token-from-env **** ← 9
        - Secret { id: "API_KEY", env: Some("API_KEY"), required: false, mode: 256, uid: 0, gid: 0 }
    11 [stage-0 11/12] RUN --mount=type=ssh   ssh -q -T git@gitlab.com 2>&1 | tee /hello ← 10
        /run/buildkit/ssh_agent.0 Ssh { id: "default", required: false, mode: 384, uid: 0, gid: 0 }
    12 [stage-0 12/12] RUN --mount=from=experiment,target=/mytmp --network=none   pip install --find-links wheels mypackage ← 11 0
        /mytmp Bind { input: Some(1), source: "/", writable: false }
        network None
    linux/amd64: 12, layers [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
      + RUN /bin/sh -c /bin/bash -c 'source $HOME/.bashrc && echo $HOME' # buildkit
      + RUN /bin/bash -c echo hello # buildkit
      + RUN echo $HOME # buildkit
      + RUN /bin/sh -c ["c:\windows\system32\tasklist.exe"] # buildkit
      + RUN c:\windows\system32\tasklist.exe # buildkit
      + RUN /bin/sh -c rm -f /etc/apt/apt.conf.d/docker-clean; echo 'Binary::apt::APT::Keep-Downloaded-Packages "true";' > /etc/apt/apt.conf.d/keep-cache # buildkit
      + RUN /bin/sh -c apt update && apt-get --no-install-recommends install -y gcc # buildkit
      + RUN /bin/sh -c aws s3 cp s3://... ... # buildkit
      + RUN /bin/sh -c some-command --token-from-env $API_KEY # buildkit
      + RUN /bin/sh -c ssh -q -T git@gitlab.com 2>&1 | tee /hello # buildkit
      + RUN /bin/sh -c pip install --find-links wheels mypackage # buildkit
    "#);
    let text =
        "# syntax=docker/dockerfile:1-labs\nFROM ubuntu\nRUN --security=insecure cat /proc/self/status | grep CapEff\n";
    assert_eq!(plan_for(text, &goal(), None).unwrap_err(), ["3: security.insecure is not allowed"]);
    let text = "FROM ubuntu\nRUN --device=vendor1.com/device=class1,required env\n";
    let errors = plan_for(text, &goal(), None).unwrap_err();
    assert_eq!(errors, ["2: device vendor1.com/device=class1 cannot be given: rbuild has no CDI devices"]);
}

#[test]
fn metadata() {
    let text = r#"FROM ubuntu
CMD echo "This is a test." | wc -
CMD ["/usr/bin/wc","--help"]
LABEL "com.example.vendor"="ACME Incorporated"
LABEL com.example.label-with-value="foo"
LABEL version="1.0"
LABEL description="This text illustrates \
that label-values can span multiple lines."
LABEL multi.label1="value1" multi.label2="value2" other="value3"
LABEL multi.label1="value1" \
      multi.label2="value2" \
      other="value3"
ENV ENV_VAR=bar
LABEL example="foo-$ENV_VAR"
LABEL single='foo-$ENV_VAR'
EXPOSE 80/tcp
EXPOSE 80/udp
ENV MY_NAME="John Doe"
ENV MY_DOG=Rex\ The\ Dog
ENV MY_CAT=fluffy
ENV MY_NAME="John Doe" MY_DOG=Rex\ The\ Dog \
    MY_CAT=fluffy
ENV MY_VAR my-value
ENV ONE TWO= THREE=world
MAINTAINER The author <author@example.com>
VOLUME ["/data"]
VOLUME /var/log /var/db
USER patrick
STOPSIGNAL 9
HEALTHCHECK --interval=5m --timeout=3s \
  CMD curl -f http://localhost/ || exit 1
ENTRYPOINT exec top -b
ENTRYPOINT ["top", "-b"]
"#;
    let planned = plan(text, &goal());
    insta::assert_snapshot!(show(&planned), @r#"
    0 [1/1] FROM docker.io/library/ubuntu:latest@sha256:… ← 
    linux/amd64: 0, layers []
      CMD ["/bin/sh" "-c" "echo \"This is a test.\" | wc -"]
      CMD ["/usr/bin/wc" "--help"]
      LABEL com.example.vendor=ACME Incorporated
      LABEL com.example.label-with-value=foo
      LABEL version=1.0
      LABEL description=This text illustrates that label-values can span multiple lines.
      LABEL multi.label1=value1 multi.label2=value2 other=value3
      LABEL multi.label1=value1 multi.label2=value2 other=value3
      ENV ENV_VAR=bar
      LABEL example=foo-bar
      LABEL single=foo-$ENV_VAR
      EXPOSE [80/tcp]
      EXPOSE [80/udp]
      ENV MY_NAME=John Doe
      ENV MY_DOG=Rex The Dog
      ENV MY_CAT=fluffy
      ENV MY_NAME=John Doe MY_DOG=Rex The Dog MY_CAT=fluffy
      ENV MY_VAR=my-value
      ENV ONE=TWO= THREE=world
      MAINTAINER The author <author@example.com>
      VOLUME [/data]
      VOLUME [/var/log /var/db]
      USER patrick
      STOPSIGNAL 9
      HEALTHCHECK {Test:[CMD-SHELL curl -f http://localhost/ || exit 1] Interval:5m0s Timeout:3s StartPeriod:0s StartInterval:0s Retries:0}
      ENTRYPOINT ["/bin/sh" "-c" "exec top -b"]
      ENTRYPOINT ["top" "-b"]
    "#);
    let config = &planned.platforms[0].image.config.config;
    assert_eq!(config.cmd, Some(vec!["/usr/bin/wc".to_owned(), "--help".to_owned()]));
    assert_eq!(planned.platforms[0].image.config.author, "The author <author@example.com>");
}

#[test]
fn add() {
    let text = r#"FROM alpine
ADD file1.txt file2.txt /usr/src/things/
ADD https://example.com/archive.zip /usr/src/things/
ADD git@github.com:user/repo.git /usr/src/things/
ADD *.png /dest/
ADD index.?s /dest/
ADD "index.?s" dest
ADD arr[[]0].txt /dest/
ADD test.txt relativeDir/
ADD test.txt /absoluteDir/
ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.10.1 /buildkit
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://mirrors.edge.kernel.org/linux-0.01.tar.gz /
ADD --checksum=be1f38efe73c6a93cc429a0488ad6e1db663398c https://github.com/moby/buildkit.git#v0.26.2 /buildkit
ADD --unpack=true https://example.com/archive.tar.gz /download
ADD --unpack=false my-archive.tar.gz .
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [ 1/15] FROM docker.io/library/alpine:latest@sha256:… ← 
    1 [internal] load build context ← 
    2 [ 2/15] ADD file1.txt file2.txt /usr/src/things/ ← 0 1
        1:file1.txt → /usr/src/things/ unpack
        1:file2.txt → /usr/src/things/ unpack
    3 ADD https://example.com/archive.zip /usr/src/things/ (https://example.com/archive.zip) ← 
    4 [ 3/15] ADD https://example.com/archive.zip /usr/src/things/ ← 2 3
        1:archive.zip → /usr/src/things/
    5 ADD git@github.com:user/repo.git /usr/src/things/ (git@github.com:user/repo.git) ← 
    6 [ 4/15] ADD git@github.com:user/repo.git /usr/src/things/ ← 4 5
        1:/ → /usr/src/things/
    7 [ 5/15] ADD *.png /dest/ ← 6 1
        1:*.png → /dest/ unpack
    8 [ 6/15] ADD index.?s /dest/ ← 7 1
        1:index.?s → /dest/ unpack
    9 [ 7/15] ADD index.?s dest ← 8 1
        1:index.?s → /dest unpack
    10 [ 8/15] ADD arr[[]0].txt /dest/ ← 9 1
        1:arr[[]0].txt → /dest/ unpack
    11 [ 9/15] ADD test.txt relativeDir/ ← 10 1
        1:test.txt → /relativeDir/ unpack
    12 [10/15] ADD test.txt /absoluteDir/ ← 11 1
        1:test.txt → /absoluteDir/ unpack
    13 ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.10.1 /buildkit (https://github.com/moby/buildkit.git#v0.10.1) ← 
    14 [11/15] ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.10.1 /buildkit ← 12 13
        1:/ → /buildkit
    15 ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://mirrors.edge.kernel.org/linux-0.01.tar.gz / (https://mirrors.edge.kernel.org/linux-0.01.tar.gz) ← 
    16 [12/15] ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://mirrors.edge.kernel.org/linux-0.01.tar.gz / ← 14 15
        1:linux-0.01.tar.gz → /
    17 ADD --checksum=be1f38efe73c6a93cc429a0488ad6e1db663398c https://github.com/moby/buildkit.git#v0.26.2 /buildkit (https://github.com/moby/buildkit.git#v0.26.2) ← 
    18 [13/15] ADD --checksum=be1f38efe73c6a93cc429a0488ad6e1db663398c https://github.com/moby/buildkit.git#v0.26.2 /buildkit ← 16 17
        1:/ → /buildkit
    19 ADD --unpack=true https://example.com/archive.tar.gz /download (https://example.com/archive.tar.gz) ← 
    20 [14/15] ADD --unpack=true https://example.com/archive.tar.gz /download ← 18 19
        1:archive.tar.gz → /download unpack
    21 [15/15] ADD --unpack=false my-archive.tar.gz . ← 20 1
        1:my-archive.tar.gz → /
    linux/amd64: 21, layers [2, 4, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 21]
      + ADD file1.txt file2.txt /usr/src/things/ # buildkit
      + ADD https://example.com/archive.zip /usr/src/things/ # buildkit
      + ADD git@github.com:user/repo.git /usr/src/things/ # buildkit
      + ADD *.png /dest/ # buildkit
      + ADD index.?s /dest/ # buildkit
      + ADD index.?s dest # buildkit
      + ADD arr[[]0].txt /dest/ # buildkit
      + ADD test.txt relativeDir/ # buildkit
      + ADD test.txt /absoluteDir/ # buildkit
      + ADD https://github.com/moby/buildkit.git#v0.10.1 /buildkit # buildkit
      + ADD https://mirrors.edge.kernel.org/linux-0.01.tar.gz / # buildkit
      + ADD https://github.com/moby/buildkit.git#v0.26.2 /buildkit # buildkit
      + ADD https://example.com/archive.tar.gz /download # buildkit
      + ADD my-archive.tar.gz . # buildkit
    "#);
}

#[test]
fn copy() {
    let text = r#"# syntax=docker/dockerfile:1-labs
FROM golang AS build
WORKDIR /app
RUN --mount=type=bind,target=. go build .
FROM scratch
WORKDIR /dest
COPY --from=build /app/myapp .
COPY --from=nginx:latest /etc/nginx/nginx.conf /nginx.conf
COPY --chown=55:mygroup files* /somedir/
COPY --chown=bin files* /somedir/
COPY --chown=1 files* /somedir/
COPY --chown=10:11 files* /somedir/
COPY --chown=myuser:mygroup --chmod=644 files* /somedir/
COPY --chmod=u=rwX,go=rX . /app/
ARG MODE=440
COPY --chmod=$MODE . .
COPY --link /foo /bar
COPY ./x/a.txt ./y/a.txt /no_parents/
COPY --parents ./x/a.txt ./y/a.txt /parents/
COPY --parents ./x/./y/*.txt /parents/
COPY --exclude=*.txt --exclude=*.md hom* /mydir/
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 FROM docker.io/library/nginx:latest@sha256:… ← 
    1 [build 1/3] FROM docker.io/library/golang:latest@sha256:… ← 
    2 [build 2/3] WORKDIR /app ← 1
        mkdir /app None
    3 [internal] load build context ← 
    4 [build 3/3] RUN --mount=type=bind,target=. go build . ← 2 3
        /app Bind { input: Some(1), source: "/", writable: false }
    5 [stage-1  1/15] WORKDIR /dest ← -
        mkdir /dest None
    6 [stage-1  2/15] COPY --from=build /app/myapp . ← 5 4
        1:/app/myapp → /dest/
    7 [stage-1  3/15] COPY --from=nginx:latest /etc/nginx/nginx.conf /nginx.conf ← 6 0
        1:/etc/nginx/nginx.conf → /nginx.conf
    8 [stage-1  4/15] COPY --chown=55:mygroup files* /somedir/ ← 7 3
        1:files* → /somedir/ chown=55:mygroup
    9 [stage-1  5/15] COPY --chown=bin files* /somedir/ ← 8 3
        1:files* → /somedir/ chown=bin
    10 [stage-1  6/15] COPY --chown=1 files* /somedir/ ← 9 3
        1:files* → /somedir/ chown=1
    11 [stage-1  7/15] COPY --chown=10:11 files* /somedir/ ← 10 3
        1:files* → /somedir/ chown=10:11
    12 [stage-1  8/15] COPY --chown=myuser:mygroup --chmod=644 files* /somedir/ ← 11 3
        1:files* → /somedir/ chown=myuser:mygroup chmod=644
    13 [stage-1  9/15] COPY --chmod=u=rwX,go=rX . /app/ ← 12 3
        1:. → /app/ chmod=u=rwX,go=rX
    14 [stage-1 10/15] COPY --chmod=440 . . ← 13 3
        1:. → /dest/ chmod=440
    15 [stage-1 11/15] COPY --link /foo /bar ← 14 3
        linked
        1:/foo → /bar
    16 [stage-1 12/15] COPY ./x/a.txt ./y/a.txt /no_parents/ ← 15 3
        1:./x/a.txt → /no_parents/
        1:./y/a.txt → /no_parents/
    17 [stage-1 13/15] COPY --parents ./x/a.txt ./y/a.txt /parents/ ← 16 3
        1:./x/a.txt → /parents/ parents
        1:./y/a.txt → /parents/ parents
    18 [stage-1 14/15] COPY --parents ./x/./y/*.txt /parents/ ← 17 3
        1:./x/./y/*.txt → /parents/ parents
    19 [stage-1 15/15] COPY --exclude=*.txt --exclude=*.md hom* /mydir/ ← 18 3
        1:hom* → /mydir/
    linux/amd64: 19, layers [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
      + WORKDIR /dest
      + COPY /app/myapp . # buildkit
      + COPY /etc/nginx/nginx.conf /nginx.conf # buildkit
      + COPY --chown=55:mygroup files* /somedir/ # buildkit
      + COPY --chown=bin files* /somedir/ # buildkit
      + COPY --chown=1 files* /somedir/ # buildkit
      + COPY --chown=10:11 files* /somedir/ # buildkit
      + COPY --chown=myuser:mygroup --chmod=644 files* /somedir/ # buildkit
      + COPY --chmod=u=rwX,go=rX . /app/ # buildkit
      ARG MODE=440
      + COPY --chmod=440 . . # buildkit
      + COPY /foo /bar # buildkit
      + COPY ./x/a.txt ./y/a.txt /no_parents/ # buildkit
      + COPY --parents ./x/a.txt ./y/a.txt /parents/ # buildkit
      + COPY --parents ./x/./y/*.txt /parents/ # buildkit
      + COPY hom* /mydir/ # buildkit
    "#);
}

#[test]
fn user_workdir_and_arg() {
    let text = "FROM busybox\nWORKDIR /a\nWORKDIR b\nWORKDIR c\nRUN pwd\nENV DIRPATH=/path\nWORKDIR $DIRPATH/$DIRNAME\nRUN pwd\n\
        USER ${username:-some_user}\nARG username\nUSER $username\nARG CONT_IMG_VER\nENV CONT_IMG_VER=${CONT_IMG_VER:-v1.0.0}\n\
        RUN echo $CONT_IMG_VER\n";
    let build_args = [("username", "what_user"), ("CONT_IMG_VER", "v2.0.1"), ("HTTPS_PROXY", "https://my-proxy")];
    let build_args = build_args.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    insta::assert_snapshot!(show(&plan(text, &Goal { build_args, ..goal() })), @r#"
    0 [1/8] FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [2/8] WORKDIR /a ← 0
        mkdir /a None
    2 [3/8] WORKDIR b ← 1
        mkdir /a/b None
    3 [4/8] WORKDIR c ← 2
        mkdir /a/b/c None
    4 [5/8] RUN pwd ← 3
    5 [6/8] WORKDIR /path/ ← 4
        mkdir /path None
    6 [7/8] RUN pwd ← 5
    7 [8/8] RUN echo v2.0.1 ← 6
    linux/amd64: 7, layers [1, 2, 3, 4, 5, 6, 7]
      + WORKDIR /a
      + WORKDIR /a/b
      + WORKDIR /a/b/c
      + RUN /bin/sh -c pwd # buildkit
      ENV DIRPATH=/path
      + WORKDIR /path/
      + RUN /bin/sh -c pwd # buildkit
      USER some_user
      ARG username=what_user
      USER what_user
      ARG CONT_IMG_VER=v2.0.1
      ENV CONT_IMG_VER=v2.0.1
      + RUN |2 username=what_user CONT_IMG_VER=v2.0.1 /bin/sh -c echo $CONT_IMG_VER # buildkit
    "#);
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/8] FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [2/8] WORKDIR /a ← 0
        mkdir /a None
    2 [3/8] WORKDIR b ← 1
        mkdir /a/b None
    3 [4/8] WORKDIR c ← 2
        mkdir /a/b/c None
    4 [5/8] RUN pwd ← 3
    5 [6/8] WORKDIR /path/ ← 4
        mkdir /path None
    6 [7/8] RUN pwd ← 5
    7 [8/8] RUN echo v1.0.0 ← 6
    linux/amd64: 7, layers [1, 2, 3, 4, 5, 6, 7]
      + WORKDIR /a
      + WORKDIR /a/b
      + WORKDIR /a/b/c
      + RUN /bin/sh -c pwd # buildkit
      ENV DIRPATH=/path
      + WORKDIR /path/
      + RUN /bin/sh -c pwd # buildkit
      USER some_user
      ARG username
      USER 
      ARG CONT_IMG_VER
      ENV CONT_IMG_VER=v1.0.0
      + RUN |2 username= CONT_IMG_VER=v1.0.0 /bin/sh -c echo $CONT_IMG_VER # buildkit
    "#);
}

#[test]
fn onbuild() {
    let text = "FROM alpine AS baseimage\nONBUILD COPY --from=build /usr/bin/app /app\n\
        ONBUILD RUN --mount=from=config,target=/opt/appconfig install\nONBUILD ADD . /app/src\n\
        FROM scratch AS config\nCOPY appconfig /\nFROM busybox AS build\nRUN make\nFROM baseimage AS final\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [baseimage 1/1] FROM docker.io/library/alpine:latest@sha256:… ← 
    1 [internal] load build context ← 
    2 [config 1/1] COPY appconfig / ← - 1
        1:appconfig → /
    3 [build 1/2] FROM docker.io/library/busybox:latest@sha256:… ← 
    4 [build 2/2] RUN make ← 3
    5 [final 1/3] ONBUILD COPY --from=build /usr/bin/app /app ← 0 4
        1:/usr/bin/app → /app
    6 [final 2/3] ONBUILD RUN --mount=from=config,target=/opt/appconfig install ← 5 2
        /opt/appconfig Bind { input: Some(1), source: "/", writable: false }
    7 [final 3/3] ONBUILD ADD . /app/src ← 6 1
        1:. → /app/src unpack
    linux/amd64: 7, layers [5, 6, 7]
      + COPY /usr/bin/app /app # buildkit
      + RUN /bin/sh -c install # buildkit
      + ADD . /app/src # buildkit
    "#);
}

#[test]
fn shell() {
    let text = r#"# escape=`

FROM microsoft/nanoserver
SHELL ["powershell","-command"]
RUN New-Item -ItemType Directory C:\Example
ADD Execute-MyCmdlet.ps1 c:\example\
RUN c:\example\Execute-MyCmdlet -sample 'hello world'
SHELL ["cmd", "/S", "/C"]
RUN echo hello
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/5] FROM docker.io/microsoft/nanoserver:latest@sha256:… ← 
    1 [2/5] RUN New-Item -ItemType Directory C:\Example ← 0
    2 [internal] load build context ← 
    3 [3/5] ADD Execute-MyCmdlet.ps1 c:\example\ ← 1 2
        1:Execute-MyCmdlet.ps1 → /c:\example\ unpack
    4 [4/5] RUN c:\example\Execute-MyCmdlet -sample 'hello world' ← 3
    5 [5/5] RUN echo hello ← 4
    linux/amd64: 5, layers [1, 3, 4, 5]
      SHELL [powershell -command]
      + RUN powershell -command New-Item -ItemType Directory C:\Example # buildkit
      + ADD Execute-MyCmdlet.ps1 c:\example\ # buildkit
      + RUN powershell -command c:\example\Execute-MyCmdlet -sample 'hello world' # buildkit
      SHELL [cmd /S /C]
      + RUN cmd /S /C echo hello # buildkit
    "#);
}

#[test]
fn here_documents() {
    let text = "# syntax=docker/dockerfile:1\nFROM debian\nARG FOO=bar\nRUN <<EOT bash\n  set -ex\n  apt-get update\nEOT\n\
        RUN <<EOT\n  mkdir -p foo/bar\nEOT\nRUN <<EOT\n#!/usr/bin/env python\nprint(\"hello world\")\nEOT\n\
        RUN <<FILE1 cat > file1 && <<FILE2 cat > file2\nI am\nfirst\nFILE1\nI am\nsecond\nFILE2\n\
        COPY <<-EOT /app/foo\n\thello ${FOO}\nEOT\nCOPY <<-\"EOT\" /app/script.sh\n\techo hello ${FOO}\nEOT\n\
        ADD <<EOF /usr/share/nginx/html/index.html\n(your index page goes here)\nEOF\n";
    insta::assert_snapshot!(show(&plan(text, &goal())), @r##"
    0 [1/8] FROM docker.io/library/debian:latest@sha256:… ← 
    1 [2/8] RUN <<EOT bash ← 0
    2 [3/8] RUN <<EOT (mkdir -p foo/bar) ← 1
    3 [4/8] RUN <<EOT (#!/usr/bin/env python...) ← 2
        /dev/pipes/EOT inline "#!/usr/bin/env python\nprint(\"hello world\")\n"
    4 [5/8] RUN <<FILE1 cat > file1 && <<FILE2 cat > file2 ← 3
    5 [6/8] COPY <<-EOT /app/foo ← 4
        "hello bar\n" → /app/foo
    6 [7/8] COPY <<-EOT /app/script.sh ← 5
        "echo hello ${FOO}\n" → /app/script.sh
    7 [8/8] ADD <<EOF /usr/share/nginx/html/index.html ← 6
        "(your index page goes here)\n" → /usr/share/nginx/html/index.html
    linux/amd64: 7, layers [1, 2, 3, 4, 5, 6, 7]
      ARG FOO=bar
      + RUN |1 FOO=bar /bin/sh -c <<EOT bash
      set -ex
      apt-get update
    EOT # buildkit
      + RUN |1 FOO=bar /bin/sh -c   mkdir -p foo/bar
     # buildkit
      + RUN |1 FOO=bar /bin/sh -c /dev/pipes/EOT # buildkit
      + RUN |1 FOO=bar /bin/sh -c <<FILE1 cat > file1 && <<FILE2 cat > file2
    I am
    first
    FILE1
    I am
    second
    FILE2 # buildkit
      + COPY <<EOT /app/foo # buildkit
      + COPY <<EOT /app/script.sh # buildkit
      + ADD <<EOF /usr/share/nginx/html/index.html # buildkit
    "##);
}

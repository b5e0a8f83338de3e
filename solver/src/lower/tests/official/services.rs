//! Databases, servers and agents: users, volumes, health checks, signals, entry points.

use super::super::*;

#[test]
fn a_database_with_keys_fetched_by_the_builder() {
    let text = r#"FROM oraclelinux:9-slim
ARG MYSQL_SHELL_VERSION
ENV GOSU_VERSION=1.17
ARG CHECKSUM=sha256:24c8375907502a2e0ba09ff5b8e0d7dbf1fa35c9d9d5a0ae0c5e4ff4cc8f8d0e
ADD --checksum=$CHECKSUM --chmod=0755 https://dl.example/gosu/${GOSU_VERSION}/gosu-amd64 /usr/local/bin/gosu
ADD --chmod=644 https://dl.example/keys/RPM-GPG-KEY?x=1#frag https://dl.example/ /etc/pki/
ADD --keep-git-dir=true https://git.example/init.git#v1:scripts /docker-entrypoint-initdb.d
ENV MYSQL_MAJOR="innovation" \
    MYSQL_VERSION='9.1.0-1.el9' \
    MYSQL_SHELL=${MYSQL_SHELL_VERSION:-9.1}
VOLUME /var/lib/mysql
VOLUME ["/var/log/my sql", "$MYSQL_MAJOR"]
VOLUME /a /b	/c
COPY config/ /etc/mysql/
COPY docker-entrypoint.sh /usr/local/bin/
RUN ln -s usr/local/bin/docker-entrypoint.sh /entrypoint.sh # backwards compat
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 3306 33060
CMD ["mysqld"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/7] FROM docker.io/library/oraclelinux:9-slim@sha256:… ← 
    1 ADD --checksum=sha256:24c8375907502a2e0ba09ff5b8e0d7dbf1fa35c9d9d5a0ae0c5e4ff4cc8f8d0e --chmod=0755 https://dl.example/gosu/1.17/gosu-amd64 /usr/local/bin/gosu (https://dl.example/gosu/1.17/gosu-amd64) ← 
    2 [2/7] ADD --checksum=sha256:24c8375907502a2e0ba09ff5b8e0d7dbf1fa35c9d9d5a0ae0c5e4ff4cc8f8d0e --chmod=0755 https://dl.example/gosu/1.17/gosu-amd64 /usr/local/bin/gosu ← 0 1
        1:gosu-amd64 → /usr/local/bin/gosu chmod=0755
    3 ADD --chmod=644 https://dl.example/keys/RPM-GPG-KEY?x=1#frag https://dl.example/ /etc/pki/ (https://dl.example/keys/RPM-GPG-KEY?x=1#frag) ← 
    4 ADD --chmod=644 https://dl.example/keys/RPM-GPG-KEY?x=1#frag https://dl.example/ /etc/pki/ (https://dl.example/) ← 
    5 [3/7] ADD --chmod=644 https://dl.example/keys/RPM-GPG-KEY?x=1#frag https://dl.example/ /etc/pki/ ← 2 3 4
        1:RPM-GPG-KEY → /etc/pki/ chmod=644
        2:__unnamed__ → /etc/pki/ chmod=644
    6 ADD --keep-git-dir=true https://git.example/init.git#v1:scripts /docker-entrypoint-initdb.d (https://git.example/init.git#v1:scripts) ← 
    7 [4/7] ADD --keep-git-dir=true https://git.example/init.git#v1:scripts /docker-entrypoint-initdb.d ← 5 6
        1:/ → /docker-entrypoint-initdb.d
    8 [internal] load build context ← 
    9 [5/7] COPY config/ /etc/mysql/ ← 7 8
        1:config/ → /etc/mysql/
    10 [6/7] COPY docker-entrypoint.sh /usr/local/bin/ ← 9 8
        1:docker-entrypoint.sh → /usr/local/bin/
    11 [7/7] RUN ln -s usr/local/bin/docker-entrypoint.sh /entrypoint.sh # backwards compat ← 10
    linux/amd64: 11, layers [2, 5, 7, 9, 10, 11]
      ARG MYSQL_SHELL_VERSION
      ENV GOSU_VERSION=1.17
      ARG CHECKSUM=sha256:24c8375907502a2e0ba09ff5b8e0d7dbf1fa35c9d9d5a0ae0c5e4ff4cc8f8d0e
      + ADD --chmod=0755 https://dl.example/gosu/1.17/gosu-amd64 /usr/local/bin/gosu # buildkit
      + ADD --chmod=644 https://dl.example/keys/RPM-GPG-KEY?x=1#frag https://dl.example/ /etc/pki/ # buildkit
      + ADD https://git.example/init.git#v1:scripts /docker-entrypoint-initdb.d # buildkit
      ENV MYSQL_MAJOR=innovation MYSQL_VERSION=9.1.0-1.el9 MYSQL_SHELL=9.1
      VOLUME [/var/lib/mysql]
      VOLUME [/var/log/my sql innovation]
      VOLUME [/a /b /c]
      + COPY config/ /etc/mysql/ # buildkit
      + COPY docker-entrypoint.sh /usr/local/bin/ # buildkit
      + RUN |2 MYSQL_SHELL_VERSION= CHECKSUM=sha256:24c8375907502a2e0ba09ff5b8e0d7dbf1fa35c9d9d5a0ae0c5e4ff4cc8f8d0e /bin/sh -c ln -s usr/local/bin/docker-entrypoint.sh /entrypoint.sh # backwards compat # buildkit
      ENTRYPOINT ["docker-entrypoint.sh"]
      EXPOSE [3306/tcp 33060/tcp]
      CMD ["mysqld"]
    "#);
}

#[test]
fn a_web_server_with_signals_and_health() {
    let text = r#"FROM alpine:3.20 AS base
LABEL maintainer="Web Server Docker Maintainers <docker-maint@example.com>" \
      "com.example.multi line"="one \
two" com.example.$x=y empty=
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5m --timeout=3s --start-period=1m30s --start-interval=500ms --retries=0 \
  CMD ["curl", "-f", "http://localhost/"]
HEALTHCHECK --interval=0s CMD curl -f http://localhost:${PORT}/ || exit 1
EXPOSE $PORTS 80
ENV PORTS="443 8000-8003/udp"
EXPOSE $PORTS "9000"/tcp
CMD ["nginx", "-g", "daemon off;"]
FROM base
STOPSIGNAL ${SIG:-37}
ENTRYPOINT []
CMD []
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [base 1/1] FROM docker.io/library/alpine:3.20@sha256:… ← 
    linux/amd64: 0, layers []
      LABEL maintainer=Web Server Docker Maintainers <docker-maint@example.com> com.example.multi line=one two com.example.=y empty=
      STOPSIGNAL SIGQUIT
      HEALTHCHECK {Test:[CMD curl -f http://localhost/] Interval:5m0s Timeout:3s StartPeriod:1m30s StartInterval:500ms Retries:0}
      HEALTHCHECK {Test:[CMD-SHELL curl -f http://localhost:${PORT}/ || exit 1] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}
      EXPOSE [80/tcp]
      ENV PORTS=443 8000-8003/udp
      EXPOSE [9000/tcp 443/tcp 8000/udp 8001/udp 8002/udp 8003/udp]
      CMD ["nginx" "-g" "daemon off;"]
      STOPSIGNAL 37
      ENTRYPOINT []
      CMD []
    "#);
}

#[test]
fn a_queue_whose_base_brings_triggers_and_a_shell() {
    let text = r#"ARG TOOLS=tools
FROM alpine AS ${TOOLS}
"#;
    let source = rbuild_parser::Source::new("Dockerfile", text);
    assert!(rbuild_parser::parse(&source).has_errors());
    let text = r#"FROM alpine AS tools
RUN make tools
FROM trigger AS one
ENV A=1
ONBUILD USER app
ONBUILD WORKDIR rel
ONBUILD ENTRYPOINT run $A
ONBUILD CMD ["x"]
FROM one AS two
CMD y
FROM two AS three
ONBUILD RUN never
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [tools 1/2] FROM docker.io/library/alpine:latest@sha256:… ← 
    1 [tools 2/2] RUN make tools ← 0
    2 [one 1/3] FROM docker.io/library/trigger:latest@sha256:… ← 
    3 [one 2/3] ONBUILD COPY --from=tools /t /t ← 2 1
        1:/t → /t
    4 [one 3/3] ONBUILD RUN trigger ← 3
    5 [two 1/4] ONBUILD WORKDIR rel ← 4
        mkdir /rel Some("app")
    linux/amd64: 5, layers [3, 4, 5]
      + COPY /t /t # buildkit
      + RUN /bin/sh -c trigger # buildkit
      ENV A=1
      USER app
      + WORKDIR /rel
      ENTRYPOINT ["/bin/sh" "-c" "run $A"]
      CMD ["x"]
      CMD ["/bin/sh" "-c" "y"]
    "#);
}

#[test]
fn a_search_engine_copied_from_an_unpacked_tree() {
    let text = r#"FROM ubuntu:24.04 AS builder
ARG VERSION=8.15.3
RUN mkdir -p /opt/es /tmp/in
WORKDIR /usr/share/elasticsearch
ADD es-${VERSION}-linux-$(arch).tar.gz /opt/
ADD *.tar.?z [a-c]*.zip /opt/es/
COPY --chmod=0444 config/*.yml config/${VERSION//./_}.options config/
COPY --chmod=go-w,u+x bin/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
FROM ubuntu:24.04
COPY --from=builder --chown=1000:0 /usr/share/elasticsearch /usr/share/elasticsearch
COPY --from=0 /a/./b/c /d
COPY --from=busybox:1.36 --parents /bin/./sh /lib/x /
RUN for i in a b; do echo $i; done && \
    # keep
    true
LABEL org.label-schema.schema-version="1.0" \
  org.opencontainers.image.version="${VERSION-unset}" \
  org.opencontainers.image.created="2024-10-09T22:08:00.659Z"
ENTRYPOINT ["/bin/tini", "--", "/usr/local/bin/docker-entrypoint.sh"]
CMD ["eswrapper"]
USER 1000:0
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 FROM docker.io/library/busybox:1.36@sha256:… ← 
    1 [builder 1/7] FROM docker.io/library/ubuntu:24.04@sha256:… ← 
    2 [builder 2/7] RUN mkdir -p /opt/es /tmp/in ← 1
    3 [builder 3/7] WORKDIR /usr/share/elasticsearch ← 2
        mkdir /usr/share/elasticsearch None
    4 [internal] load build context ← 
    5 [builder 4/7] ADD es-8.15.3-linux-$(arch).tar.gz /opt/ ← 3 4
        1:es-8.15.3-linux-$(arch).tar.gz → /opt/ unpack
    6 [builder 5/7] ADD *.tar.?z [a-c]*.zip /opt/es/ ← 5 4
        1:*.tar.?z → /opt/es/ unpack
        1:[a-c]*.zip → /opt/es/ unpack
    7 [builder 6/7] COPY --chmod=0444 config/*.yml config/8_15_3.options config/ ← 6 4
        1:config/*.yml → /usr/share/elasticsearch/config/ chmod=0444
        1:config/8_15_3.options → /usr/share/elasticsearch/config/ chmod=0444
    8 [builder 7/7] COPY --chmod=go-w,u+x bin/docker-entrypoint.sh /usr/local/bin/docker-entrypoint.sh ← 7 4
        1:bin/docker-entrypoint.sh → /usr/local/bin/docker-entrypoint.sh chmod=go-w,u+x
    9 [stage-1 2/5] COPY --from=builder --chown=1000:0 /usr/share/elasticsearch /usr/share/elasticsearch ← 1 8
        1:/usr/share/elasticsearch → /usr/share/elasticsearch chown=1000:0
    10 [stage-1 3/5] COPY --from=0 /a/./b/c /d ← 9 8
        1:/a/./b/c → /d
    11 [stage-1 4/5] COPY --from=busybox:1.36 --parents /bin/./sh /lib/x / ← 10 0
        1:/bin/./sh → / parents
        1:/lib/x → / parents
    12 [stage-1 5/5] RUN for i in a b; do echo $i; done &&     true ← 11
    linux/amd64: 12, layers [9, 10, 11, 12]
      + COPY --chown=1000:0 /usr/share/elasticsearch /usr/share/elasticsearch # buildkit
      + COPY /a/./b/c /d # buildkit
      + COPY --parents /bin/./sh /lib/x / # buildkit
      + RUN /bin/sh -c for i in a b; do echo $i; done &&     true # buildkit
      LABEL org.label-schema.schema-version=1.0 org.opencontainers.image.version=unset org.opencontainers.image.created=2024-10-09T22:08:00.659Z
      ENTRYPOINT ["/bin/tini" "--" "/usr/local/bin/docker-entrypoint.sh"]
      CMD ["eswrapper"]
      USER 1000:0
    "#);
}

#[test]
fn an_agent_with_secrets_and_keys() {
    let text = r#"FROM alpine
WORKDIR /work
ENV TOKEN=public
RUN --mount=type=secret,id=TOKEN,env=TOKEN --mount=type=secret,id=a/b/cred,target=cred echo "$TOKEN"
RUN --mount=type=secret,source=aws,target=/root/.aws,required=true,uid=1,gid=2 \
    --mount=type=secret,target=etc/deep/name,mode=0440,env=NAME true
RUN --mount=type=ssh --mount=type=ssh,id=git,target=sock,required git clone x
RUN --mount=type=tmpfs,target=/t,size=1g --mount=type=cache,target=./rel/../c --mount=target=.,ro=false ls
RUN --mount=type=bind,from=busybox,target=/bb,source=/bin --mount=type=cache,from=busybox,dst=/cc,mode=0700 ls
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 FROM docker.io/library/busybox:latest@sha256:… ← 
    1 [stage-0 1/7] FROM docker.io/library/alpine:latest@sha256:… ← 
    2 [stage-0 2/7] WORKDIR /work ← 1
        mkdir /work None
    3 [stage-0 3/7] RUN --mount=type=secret,id=TOKEN,env=TOKEN --mount=type=secret,id=a/b/cred,target=cred echo "****" ← 2
        - Secret { id: "TOKEN", env: Some("TOKEN"), required: false, mode: 256, uid: 0, gid: 0 }
        /work/cred Secret { id: "a/b/cred", env: None, required: false, mode: 256, uid: 0, gid: 0 }
    4 [stage-0 4/7] RUN --mount=type=secret,source=aws,target=/root/.aws,required=true,uid=1,gid=2     --mount=type=secret,target=etc/deep/name,mode=0440,env=NAME true ← 3
        /root/.aws Secret { id: "aws", env: None, required: true, mode: 256, uid: 1, gid: 2 }
        /work/etc/deep/name Secret { id: "name", env: Some("NAME"), required: false, mode: 288, uid: 0, gid: 0 }
    5 [stage-0 5/7] RUN --mount=type=ssh --mount=type=ssh,id=git,target=sock,required git clone x ← 4
        /run/buildkit/ssh_agent.0 Ssh { id: "default", required: false, mode: 384, uid: 0, gid: 0 }
        /work/sock Ssh { id: "git", required: true, mode: 384, uid: 0, gid: 0 }
    6 [internal] load build context ← 
    7 [stage-0 6/7] RUN --mount=type=tmpfs,target=/t,size=1g --mount=type=cache,target=./rel/../c --mount=target=.,ro=false ls ← 5 6
        /t Tmpfs { size: Some(1073741824) }
        /work/c Cache { id: "c", sharing: Shared, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
        /work Bind { input: Some(1), source: "/", writable: true }
    8 [stage-0 7/7] RUN --mount=type=bind,from=busybox,target=/bb,source=/bin --mount=type=cache,from=busybox,dst=/cc,mode=0700 ls ← 7 0
        /bb Bind { input: Some(1), source: "/bin", writable: false }
        /cc Cache { id: "/cc", sharing: Shared, input: None, source: "/", writable: true, mode: 448, uid: 0, gid: 0 }
    linux/amd64: 8, layers [2, 3, 4, 5, 7, 8]
      + WORKDIR /work
      ENV TOKEN=public
      + RUN /bin/sh -c echo "$TOKEN" # buildkit
      + RUN /bin/sh -c true # buildkit
      + RUN /bin/sh -c git clone x # buildkit
      + RUN /bin/sh -c ls # buildkit
      + RUN /bin/sh -c ls # buildkit
    "#);
}

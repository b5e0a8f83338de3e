ARG BASE_IMAGE

FROM $BASE_IMAGE

ARG TARGETPLATFORM

ENV FIPS_ENABLED=1

RUN apt-get update -y && apt-get upgrade -y && \
    apt-get install -y --no-install-recommends \
        apt-transport-https ca-certificates curl git git-lfs wget tzdata openssh-client && \
    rm -rf /var/lib/apt/lists/*

ARG DOCKER_MACHINE_VERSION
ARG DUMB_INIT_VERSION

COPY gitlab-runner_*.deb checksums-* install-deps install-gitlab-runner /tmp/

RUN /tmp/install-deps "${TARGETPLATFORM}" "${DOCKER_MACHINE_VERSION}" "${DUMB_INIT_VERSION}"
RUN rm -rf /tmp/*

STOPSIGNAL SIGQUIT
VOLUME ["/etc/gitlab-runner", "/home/gitlab-runner"]
ENTRYPOINT ["/usr/bin/dumb-init", "/entrypoint"]
CMD ["run", "--user=gitlab-runner", "--working-directory=/home/gitlab-runner"]

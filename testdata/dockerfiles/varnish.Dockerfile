FROM debian:bookworm-slim

ARG PKG_COMMIT=cf4ae1b5b37b9e7d1e8fdf1c9a0b6dbb6b5b4b59
ARG VARNISH_VERSION=7.5.0
ARG DIST_SHA512=fca61b983139e1aac61c4546d12a1a3ab9807dbb1d8314571e3148c93ff72b5d
ARG VARNISH_MODULES_SHA512SUM=52feb1eb1c82a9d2c3a2b2e0f5d4d64b

ENV VARNISH_SIZE 100M

RUN set -e; \
    BASE_PKGS="curl dpkg-dev git debhelper devscripts equivs pkg-config apt-utils fakeroot libgetdns-dev"; \
    export DEBIAN_FRONTEND=noninteractive; \
    export DEBCONF_NONINTERACTIVE_SEEN=true; \
    mkdir -p /work /pkgs && cd /work && \
    echo "$BASE_PKGS" | xargs -n1 >/dev/null

WORKDIR /etc/varnish

COPY scripts/ /usr/local/bin/

ENTRYPOINT ["/usr/local/bin/docker-varnish-entrypoint"]

USER varnish
EXPOSE 80 8443
CMD []

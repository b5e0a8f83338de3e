FROM opensuse/leap:15.6
MAINTAINER Build Team <team@example.org>
RUN zypper --non-interactive refresh && \
    zypper --non-interactive install --no-recommends \
        gcc13 \
        'libstdc++6-devel-gcc13' \
        "pattern:devel_basis" && \
    zypper clean --all
ENV CC=gcc-13 CXX=g++-13
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN gcc-13 --version | head -n1

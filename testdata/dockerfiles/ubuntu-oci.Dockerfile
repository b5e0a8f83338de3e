ARG LAUNCHPAD_BUILD_ARCH
FROM scratch
ARG LAUNCHPAD_BUILD_ARCH
ARG RELEASE
LABEL org.opencontainers.image.ref.name="ubuntu"
LABEL org.opencontainers.image.version="24.04"
ADD --chown=0:0 ubuntu-noble-oci-${LAUNCHPAD_BUILD_ARCH:-amd64}-root.tar.gz /
CMD ["/bin/bash"]

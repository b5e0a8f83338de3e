# syntax=docker/dockerfile:1.7-labs
FROM --platform=$BUILDPLATFORM alpine:3.20 AS zig
ARG ZIG=0.13.0
ADD --checksum=sha256:d45312e61ebcc48032b77bc4cf7fd6915c11fa16e4aad116b66c9468211230ea \
    https://builds.example.org/download/${ZIG}/zig-linux-x86_64-${ZIG}.tar.xz /tmp/zig.tar.xz
RUN tar -xJf /tmp/zig.tar.xz -C /opt && ln -s /opt/zig-*/zig /usr/local/bin/zig

FROM zig AS build
WORKDIR /w
COPY --parents build.zig src/**/*.zig ./
COPY --exclude=*.md --exclude=testdata vendor/ vendor/
ARG TARGETPLATFORM
RUN case "$TARGETPLATFORM" in \
      linux/amd64) t=x86_64-linux-musl ;; \
      linux/arm64) t=aarch64-linux-musl ;; \
      *) exit 1 ;; \
    esac; zig build -Dtarget=$t -Doptimize=ReleaseSafe

FROM scratch
COPY --from=build --chmod=0755 /w/zig-out/bin/tool /tool
ENTRYPOINT ["/tool"]

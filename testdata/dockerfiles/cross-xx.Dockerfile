# syntax=docker/dockerfile:1
# check=skip=JSONArgsRecommended,FromPlatformFlagConstDisallowed;error=true

FROM --platform=$BUILDPLATFORM tonistiigi/xx:1.4.0 AS xx

FROM --platform=$BUILDPLATFORM alpine:3.20 AS build-base
COPY --from=xx / /
RUN apk add clang lld file
ARG TARGETPLATFORM
RUN xx-apk add --no-cache musl-dev gcc

# hello the compiled program
FROM build-base AS hello
WORKDIR /work
COPY <<-"C" hello.c
	#include <stdio.h>
	int main(void) { printf("hello %s\n", "$USER"); return 0; }
C
RUN xx-clang -static -O2 hello.c -o hello && xx-verify --static hello

FROM --platform=linux/amd64 alpine:3.20 AS linux-amd64-test
RUN --network=none --mount=from=hello,source=/work/hello,target=/hello /hello

FROM scratch
COPY --from=hello /work/hello /
CMD /hello

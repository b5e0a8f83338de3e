FROM buildpack-deps:trixie

RUN set -ex; \
	if ! command -v gpg > /dev/null; then \
		apt-get update; \
		apt-get install -y --no-install-recommends gnupg dirmngr; \
	fi

# https://gcc.example/mirrors.html
ENV GPG_KEYS \
# 1024D/745C015A 1999-11-09 Gerald Pfeifer <gerald@example.com>
	B215C1633BCA0477615F1B35A5B3A004745C015A \
# 1024D/B75C61B8 2003-04-10 Mark Mitchell <mark@example.com>
	B3C42148A44E6983B3E4CC0793FA9B1AB75C61B8 \

	90AA470469D3965A87A5DCB494D03953902C9419
RUN set -ex; \
	export GNUPGHOME="$(mktemp -d)"; \
	for key in $GPG_KEYS; do \
		gpg --batch --keyserver keyserver.example.com --recv-keys "$key"; \
	done

# https://ftp.example.org/gnu/gcc/
ENV GCC_MIRRORS \
		https://ftpmirror.example.org/gcc \
		https://bigsearcher.example.com/mirrors/gcc/releases
ENV GCC_VERSION 14.2.0
ONBUILD RUN gcc --version && \
	g++ --version
ONBUILD COPY --chown=0:0 [ "src dir/", "/usr/src/" ]

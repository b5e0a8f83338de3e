FROM docker:27-cli

# https://example.com/docker/blob/master/project/PACKAGERS.md#runtime-dependencies
RUN set -eux; \
	apk add --no-cache \
		btrfs-progs \
		e2fsprogs \
		git \
# dockerd requires "iptables"
		ip6tables iptables \
		openssl \
		pigz \
		xz \
	;

# dev branches use different binaries
RUN set -eux; \
	mkdir -p /usr/local/sbin/.iptables-legacy; \
	for f in \
		iptables \
		iptables-save \
	; do \
		b="$(command -v "$f")"; \
		ln -svT "${b%-*}-legacy" "/usr/local/sbin/.iptables-legacy/$f"; \
	done; \
	export PATH="/usr/local/sbin/.iptables-legacy:$PATH"; \
	iptables --version | grep legacy

ENV DIND_COMMIT 65cfcc28ab37cb75e1560e4b4738719c07c6618e
ADD --chmod=755 https://raw.example.com/moby/$DIND_COMMIT/hack/dind /usr/local/bin/dind
COPY dockerd-entrypoint.sh /usr/local/bin/

VOLUME /var/lib/docker
EXPOSE 2375/tcp 2376

ENTRYPOINT ["dockerd-entrypoint.sh"]
CMD []

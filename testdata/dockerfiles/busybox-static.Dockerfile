FROM debian:bookworm-slim AS build
RUN set -eux; \
	apt-get update; \
	apt-get install -y --no-install-recommends bzip2 curl gcc gnupg dirmngr make libc6-dev patch; \
	rm -rf /var/lib/apt/lists/*

# pub   1024D/ACC9965B 2006-12-12
ENV BUSYBOX_VERSION 1.36.1
WORKDIR /usr/src/busybox

RUN set -eux; \
	setConfs=' \
		CONFIG_AR=y \
		CONFIG_FEATURE_AR_CREATE=y \
		CONFIG_STATIC=y \
	'; \
	unsetConfs=' \
		CONFIG_FEATURE_SYNC_FANCY \
	'; \
	make defconfig; \
	for conf in $unsetConfs; do sed -i -e "s!^$conf=.*\$!# $conf is not set!" .config; done; \
	for confV in $setConfs; do \
		conf="${confV%=*}"; \
		sed -i -e "s!^$conf=.*\$!$confV!" -e "s!^# $conf is not set\$!$confV!" .config; \
		if ! grep -q "^$confV\$" .config; then echo "$confV" >> .config; fi; \
	done; \
	make oldconfig; \
	make -j "$(nproc)" busybox.links

FROM scratch
COPY --from=build /usr/src/busybox/_install/ /
CMD ["sh"]

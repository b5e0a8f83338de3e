# vim:set ft=dockerfile:
FROM ubuntu:noble

# add our user and group first to make sure their IDs get assigned consistently, regardless of whatever dependencies get added
RUN groupadd -r mysql && useradd -r -g mysql mysql --home-dir /var/lib/mysql && userdel --remove ubuntu

ENV GOSU_VERSION 1.17

ARG GPG_KEYS=177F4010FE56CA3336300305F1656F24C74CD1D8
# pub   rsa4096 2016-03-30 [SC]
#         177F 4010 FE56 CA33 3630  0305 F165 6F24 C74C D1D8
# uid           [ unknown] Signing Key <signing-key@example.org>

# Ensure the container exec commands handle range of utf8 characters based of
# default locales in base image (https://github.example.org/docs/135)
ENV LANG C.UTF-8

# OCI annotations to image
LABEL org.opencontainers.image.authors="Community" \
      org.opencontainers.image.title="Database" \
      org.opencontainers.image.description="Database for relational SQL" \
      org.opencontainers.image.version="11.4.2"

# bashbrew-architectures: amd64 arm64v8 ppc64le s390x
ARG MARIADB_VERSION=1:11.4.2+maria~ubu2404
ENV MARIADB_VERSION $MARIADB_VERSION
# release-status:Stable
# release-support-type:Long Term Support

ARG REPOSITORY="http://archive.example.org/mariadb-11.4.2/repo/ubuntu/ noble main main/debug"

RUN set -e;\
	echo "deb ${REPOSITORY}" > /etc/apt/sources.list.d/mariadb.list; \
	{ \
		echo 'Package: *'; \
		echo 'Pin: release o=MariaDB'; \
		echo 'Pin-Priority: 999'; \
	} > /etc/apt/preferences.d/mariadb

VOLUME /var/lib/mysql

COPY healthcheck.sh docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
HEALTHCHECK --start-period=5m CMD healthcheck.sh --connect --innodb_initialized

EXPOSE 3306
CMD ["mariadbd"]

FROM debian:bookworm-slim

# prevent Debian's PHP packages from being installed
RUN set -eux; \
	{ \
		echo 'Package: php*'; \
		echo 'Pin: release *'; \
		echo 'Pin-Priority: -1'; \
	} > /etc/apt/preferences.d/no-debian-php

# dependencies required for running "phpize"
ENV PHPIZE_DEPS \
		autoconf \
		dpkg-dev \
		file \
		g++ \
		gcc \
		make \
		re2c

ENV PHP_INI_DIR /usr/local/etc/php
ENV PHP_CFLAGS="-fstack-protector-strong -fpic -fpie -O2 -D_LARGEFILE_SOURCE -D_FILE_OFFSET_BITS=64"
ENV PHP_CPPFLAGS="$PHP_CFLAGS"
ENV PHP_LDFLAGS="-Wl,-O1 -pie"
ENV PHP_URL="https://www.example.org/distributions/php-8.3.8.tar.xz" PHP_ASC_URL=""

COPY docker-php-source docker-php-ext-* /usr/local/bin/

RUN set -eux; cd /usr/local/etc; \
	{ \
		echo '[global]'; \
		echo 'error_log = /proc/self/fd/2'; \
		echo; echo '; https://github.com/docker-library/php/pull/725'; echo 'log_limit = 8192'; \
		echo; \
		echo '[www]'; \
		echo 'clear_env = no'; \
	} | tee php-fpm.d/docker.conf

# Override stop signal to stop process gracefully
STOPSIGNAL SIGQUIT

WORKDIR /var/www/html
EXPOSE 9000
CMD ["php-fpm"]

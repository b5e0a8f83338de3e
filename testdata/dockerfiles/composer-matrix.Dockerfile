# syntax=docker/dockerfile:1.9-labs
# check=skip=InvalidDefaultArgInFrom;experimental=all
# escape=\

ARG PHP_VERSION
ARG ALPINE="3.20"  OS=alpine${ALPINE}
# composer the version of the package manager
ARG COMPOSER=2 UNPINNED

FROM --platform=${BUILDPLATFORM:-linux/amd64} composer:${COMPOSER} AS composer
FROM php:${PHP_VERSION:-8.3}-fpm-${OS} AS base
COPY --link --from=composer --chmod=0755 /usr/bin/composer /usr/local/bin/composer
RUN --mount=type=bind,from=mlocati/php-extension-installer:2.6,source=/usr/bin/install-php-extensions,target=/usr/local/bin/ipe \
    --mount=type=cache,target=/tmp/pear,sharing=private,id=pear-$PHP_VERSION \
    ipe @fix_letsencrypt intl 'pdo_pgsql' "redis-^6"
WORKDIR /srv/app

FROM base AS vendor
ENV COMPOSER_CACHE_DIR=/tmp/cache COMPOSER_ALLOW_SUPERUSER=1
COPY --parents composer.json composer.lock packages/*/composer.json ./
RUN --mount=type=secret,id=composer_auth,env=COMPOSER_AUTH,required=true \
    --mount=type=cache,target=$COMPOSER_CACHE_DIR <<-"SETUP" bash -euo pipefail
	composer install --no-dev --no-scripts
	echo "$(( 1 + 1 ))"
	SETUP

FROM base AS prod
COPY --exclude=.git --exclude=tests/** --exclude=!tests/keep . .
COPY --from=vendor ["/srv/app/vendor", "./vendor"]
COPY <<production.ini <<'www.conf' /usr/local/etc/php/
memory_limit = ${PHP_MEMORY:-256M}
production.ini
[www]
pm.max_children = $MAX
www.conf
STOPSIGNAL SIGQUIT
EXPOSE 9000

# DO NOT EDIT: created by update.sh from Dockerfile-debian.template
FROM php:8.3-apache-bookworm

# set recommended PHP.ini settings
ENV PHP_OPCACHE_MEMORY_CONSUMPTION=128
RUN { \
        echo 'opcache.enable=1'; \
        echo 'opcache.memory_consumption=${PHP_OPCACHE_MEMORY_CONSUMPTION}'; \
        echo 'opcache.save_comments=1'; \
    } > "${PHP_INI_DIR}/conf.d/opcache-recommended.ini"; \
    \
    echo 'apc.enable_cli=1' >> "${PHP_INI_DIR}/conf.d/docker-php-ext-apcu.ini"; \
    \
    mkdir /var/www/data; \
    chmod -R g=u /var/www

VOLUME /var/www/html

RUN a2enmod headers rewrite remoteip ; \
    { \
     echo 'RemoteIPHeader X-Real-IP'; \
     echo 'RemoteIPInternalProxy 10.0.0.0/8'; \
    } > /etc/apache2/conf-available/remoteip.conf; \
    a2enconf remoteip

ENV NEXTCLOUD_VERSION=30.0.1 PHP_MEMORY_LIMIT=512M PHP_UPLOAD_LIMIT=512M

COPY *.sh upgrade.exclude /
COPY config/* /usr/src/nextcloud/config/

HEALTHCHECK --start-period=60s --retries=3 \
    CMD php -r 'exit(json_decode(file_get_contents("http://localhost/status.php"))->installed ? 0 : 1);'
ENTRYPOINT ["/entrypoint.sh"]
CMD ["apache2-foreground"]

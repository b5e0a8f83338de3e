FROM eclipse-temurin:17-jre-jammy

# explicitly set user/group IDs
RUN set -eux; \
	groupadd -r cassandra --gid=999; \
	useradd -r -g cassandra --uid=999 cassandra

ENV CASSANDRA_HOME /opt/cassandra
ENV CASSANDRA_CONF /etc/cassandra
ENV PATH $CASSANDRA_HOME/bin:$PATH

# https://cassandra.example.org/KEYS
ENV GPG_KEYS CEC86BB4A0BA9D0F90397CAEF8358FA2F2833C93 \
	C4965EE9E3015D192CCCF2B6F758CE318D77295D

ENV CASSANDRA_VERSION 4.1.5
ENV CASSANDRA_SHA512 9ef2ab8da1f1bd1dc9a7b9c9a2ab45ef3c1e8e1a1ad2

ENV JVM_OPTS="-Xms1g -Xmx1g" \
    # listen where others can reach it
    CASSANDRA_LISTEN_ADDRESS=auto

VOLUME ["/var/lib/cassandra", "/var/log/cassandra"]

COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]

# 7000: intra-node communication
# 7001: TLS intra-node communication
# 7199: JMX
# 9042: CQL
# 9160: thrift service
EXPOSE 7000 7001 7199 9042 9160
CMD ["cassandra", "-f"]

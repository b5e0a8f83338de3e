# syntax=docker/dockerfile:1
FROM debian:bookworm-slim
ARG NAME="world of words" GREETING='it'"'"'s me'

RUN <<EOF
set -e
apt-get update
apt-get install -y vim   # an editor
rm -rf /var/lib/apt/lists/*
EOF

RUN <<PYTHON python3
import sys
print("hello", sys.argv)
PYTHON

RUN <<-'SCRIPT'
	#!/usr/bin/env bash
	echo "$NOT_EXPANDED"
	SCRIPT

COPY <<one.txt <<'two.txt' <<-"three" /data/
first ${NAME} \$kept
one.txt
second ${NAME}
two.txt
	third
	three

ADD --chmod=0644 <<robots.txt /usr/share/nginx/html/
User-agent: *
Disallow: /
robots.txt

RUN cat <<A - 3<<B <<-C > /out && cat <&3 >> /out
a
A
b
B
	c
	C

ONBUILD COPY <<EOF /etc/motd
built on $(date)
EOF
CMD ["cat", "/data/one.txt"]

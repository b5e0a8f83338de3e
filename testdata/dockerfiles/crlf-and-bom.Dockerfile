# syntax=docker/dockerfile:1
# escape=\
FROM alpine:3.20
RUN apk add \
    # with a comment
    curl \
    git
COPY <<EOF /f
one
two
EOF
CMD ["sh"]

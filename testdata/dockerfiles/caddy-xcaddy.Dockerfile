FROM caddy:2.8-builder AS builder
RUN xcaddy build \
    --with github.com/caddy-dns/cloudflare \
    --with github.com/greenpau/caddy-security@v1.1.29

FROM caddy:2.8
COPY --from=builder /usr/bin/caddy /usr/bin/caddy
COPY <<EOF /etc/caddy/Caddyfile
{
	admin off
}

:80 {
	respond "hello from {$HOSTNAME}"
}
EOF

FROM rust:1.79-slim-bookworm AS chef
RUN cargo install cargo-chef --locked --version ^0.1
WORKDIR /app

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /app/recipe.json recipe.json
# Build dependencies - this is the caching layer
RUN cargo chef cook --release --recipe-path recipe.json
COPY . .
ENV SQLX_OFFLINE=true RUSTFLAGS="-C target-cpu=x86-64-v2"
RUN cargo build --release --bin web

FROM debian:bookworm-slim AS runtime
WORKDIR /app
RUN apt-get update -y \
  && apt-get install -y --no-install-recommends openssl ca-certificates \
  # Clean up
  && apt-get autoremove -y && apt-get clean -y && rm -rf /var/lib/apt/lists/*
COPY --from=builder /app/target/release/web web
COPY configuration configuration
ENV APP_ENVIRONMENT production
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s CMD ["./web", "--health"]
ENTRYPOINT ["./web"]

# Any Debian-based image with Rust and a C compiler.
ARG BUILDER=rust:1.95-slim-bookworm
FROM ${BUILDER} AS build
# The builder sets it for each platform. By hand: --build-arg TARGETARCH=arm64
ARG TARGETARCH
WORKDIR /src
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN case "${TARGETARCH:-$(uname -m)}" in \
      amd64|x86_64) echo x86_64-unknown-linux-gnu ;; \
      arm64|aarch64) echo aarch64-unknown-linux-gnu ;; \
      *) echo "no build for ${TARGETARCH}" >&2; exit 1 ;; \
    esac > /target
# The dependencies are a separate layer, which is kept until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo '//! A stand-in.' | tee src/lib.rs > src/main.rs && echo 'fn main() {}' >> src/main.rs \
    && cargo build --locked --release --target "$(cat /target)"
COPY src src
# The commit that --version prints: --build-arg GIT_COMMIT=$(git rev-parse --short=12 HEAD)
ARG GIT_COMMIT
# Newer than the stand-ins above, whatever the time stamps of the checkout.
RUN touch src/lib.rs src/main.rs \
    && GIT_COMMIT="${GIT_COMMIT:-}" cargo build --locked --release --target "$(cat /target)" \
    && cp "target/$(cat /target)/release/infernet-router" /infernet-router
# The content of the image. Some builders do not create the working directory.
RUN mkdir -p /image/app && mv /infernet-router /image/

FROM scratch
ARG GIT_COMMIT
ARG VERSION
ARG SOURCE
LABEL org.opencontainers.image.title="infernet-router" \
      org.opencontainers.image.description="Tells clients of an Infernet fleet which nodes to call" \
      org.opencontainers.image.licenses="BSD-3-Clause-Clear" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /image /
WORKDIR /app
# A number, because the image has no /etc/passwd.
USER 65532:65532
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/infernet-router", "health"]
ENTRYPOINT ["/infernet-router"]

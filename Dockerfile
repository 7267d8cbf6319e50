# Two ways to build the same image, which contains nothing but one static binary.
#
#   docker build --tag piperoll .                                     builds from source (needs the network)
#   docker build --tag piperoll --target prebuilt DIR_WITH_BINARY     takes a binary built outside; scripts/cluster-up
#
# The stage without a download comes first, so that builders that execute every stage up to the target download nothing.

FROM scratch AS prebuilt
COPY piperoll /piperoll
USER 65532:65532
ENTRYPOINT ["/piperoll"]

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# An explicit target keeps the flag from applying to build scripts and procedural macros, which cannot be static.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --package piperoll --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && cp target/*/release/piperoll /piperoll

FROM scratch
COPY --from=build /piperoll /piperoll
USER 65532:65532
ENTRYPOINT ["/piperoll"]

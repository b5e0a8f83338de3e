FROM ocaml/opam:debian-12-ocaml-5.1 AS build
RUN sudo ln -f /usr/bin/opam-2.1 /usr/bin/opam
WORKDIR /home/opam/src
COPY --chown=opam:opam *.opam dune-project ./
RUN opam install . --deps-only --with-test -y
COPY --chown=opam . .
RUN eval $(opam env) \
 && dune build --profile=release @install \
 && dune install --prefix=/home/opam/out

FROM debian:12-slim
RUN apt-get update && apt-get install -y libgmp10 libev4 && rm -rf /var/lib/apt/lists/*
COPY --from=build /home/opam/out/bin/ /usr/local/bin/
USER 65534:65534
CMD ["service"]

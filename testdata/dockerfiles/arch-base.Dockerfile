FROM alpine:3.20 AS verify
RUN apk add --no-cache curl tar zstd
RUN curl -sOJL "https://gitlab.example.org/base-20240616.0.tar.zst" \
    && echo "1f3a  base-20240616.0.tar.zst" > /tmp/sha256sums.txt \
    && sha256sum -c /tmp/sha256sums.txt \
    && mkdir /rootfs \
    && tar -C /rootfs --extract --file base-20240616.0.tar.zst

FROM scratch AS root
COPY --from=verify /rootfs/ /

# manually run all alpm hooks that can't be run inside the fakechroot
RUN ldconfig && update-ca-trust && locale-gen
RUN sh -c 'ls usr/lib/sysusers.d/*.conf | /usr/share/libalpm/scripts/systemd-hook sysusers '

# initialize the archlinux keyring, but discard any private key that may be shipped.
RUN pacman-key --init && pacman-key --populate && bash -c "rm -rf etc/pacman.d/gnupg/{openpgp-revocs.d/,private-keys-v1.d/,pubring.gpg~,gnupg.S.}*"

ENV LANG=C.UTF-8
CMD ["/usr/bin/bash"]

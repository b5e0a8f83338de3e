FROM buildpack-deps:bookworm
LABEL maintainer="The Authors <authors@example.org>"

# No DevelPatchPerl.patch generated
WORKDIR /usr/src/perl

RUN true \
    && curl -fL https://cpan.example.org/src/5.0/perl-5.40.0.tar.xz -o perl-5.40.0.tar.xz \
    && echo 'd5325300ad267624cb0b7d512cfdfcd74fa7fe00c455c5b51a6bd53e5e199ef9 *perl-5.40.0.tar.xz' | sha256sum --strict --check - \
    && tar --strip-components=1 -xaf perl-5.40.0.tar.xz -C /usr/src/perl \
    && rm perl-5.40.0.tar.xz \
    && cat *.patch | patch -p1 || true \
    && gnuArch="$(dpkg-architecture --query DEB_BUILD_GNU_TYPE)" \
    && archBits="$(dpkg-architecture --query DEB_BUILD_ARCH_BITS)" \
    && archFlag="$([ "$archBits" = '64' ] && echo '-Duse64bitall' || echo '-Duse64bitint')" \
    && ./Configure -Darchname="$gnuArch" "$archFlag" -Duseshrplib -Dvendorprefix=/usr/local -des \
    && make -j$(nproc) \
    && make install

ENV PERL_CPANM_OPT --verbose --mirror https://cpan.example.org --mirror-only
RUN cpanm Digest::SHA Module::Signature && cpanm --self-upgrade
ENV PERL_CPANM_OPT $PERL_CPANM_OPT --verify

WORKDIR /

CMD ["perl5.40.0","-de0"]

//! Applications: a build stage or several, and an image that takes only the results.

use super::super::*;

#[test]
fn a_site_generator_with_stages_nobody_needs() {
    let text = r#"FROM node AS deps
COPY package*.json ./
RUN --mount=type=cache,target=/root/.npm npm ci
FROM deps AS test
RUN npm test
FROM deps AS lint
COPY --from=test /report /report
FROM deps AS build
COPY . .
RUN --mount=from=lint,target=/lint npm run build
FROM nginx AS unused
RUN --mount=from=unneeded,target=/x true
FROM busybox AS unneeded
FROM nginx
COPY --from=build /dist /usr/share/nginx/html
COPY --from=nginx:latest /etc/nginx/nginx.conf /nginx.conf
"#;
    // A stage may be mounted only after it has been written down; that the target does not need it changes nothing.
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 FROM docker.io/library/nginx:latest@sha256:… ← 
    1 [deps 1/3] FROM docker.io/library/node:latest@sha256:… ← 
    2 [internal] load build context ← 
    3 [deps 2/3] COPY package*.json ./ ← 1 2
        1:package*.json → /
    4 [deps 3/3] RUN --mount=type=cache,target=/root/.npm npm ci ← 3
        /root/.npm Cache { id: "/root/.npm", sharing: Shared, input: None, source: "/", writable: true, mode: 493, uid: 0, gid: 0 }
    5 [test 1/1] RUN npm test ← 4
    6 [lint 1/1] COPY --from=test /report /report ← 4 5
        1:/report → /report
    7 [build 1/2] COPY . . ← 4 2
        1:. → /
    8 [build 2/2] RUN --mount=from=lint,target=/lint npm run build ← 7 6
        /lint Bind { input: Some(1), source: "/", writable: false }
    9 [stage-6 2/3] COPY --from=build /dist /usr/share/nginx/html ← 0 8
        1:/dist → /usr/share/nginx/html
    10 [stage-6 3/3] COPY --from=nginx:latest /etc/nginx/nginx.conf /nginx.conf ← 9 0
        1:/etc/nginx/nginx.conf → /nginx.conf
    linux/amd64: 10, layers [9, 10]
      + COPY /dist /usr/share/nginx/html # buildkit
      + COPY /etc/nginx/nginx.conf /nginx.conf # buildkit
    "#);
}

#[test]
fn a_rails_application_with_arguments_between_stages() {
    let text = r#"# syntax = docker/dockerfile:1

# Make sure RUBY_VERSION matches
ARG RUBY_VERSION=3.3.5
FROM registry.docker.com/library/ruby:$RUBY_VERSION-slim as base
WORKDIR /rails
ENV RAILS_ENV="production" \
    BUNDLE_DEPLOYMENT="1" \

    BUNDLE_PATH="/usr/local/bundle"
FROM base as build
COPY Gemfile Gemfile.lock ./
RUN bundle install && \
    rm -rf ~/.bundle/ "${BUNDLE_PATH}"/ruby/*/cache "${BUNDLE_PATH}"/ruby/*/bundler/gems/*/.git
COPY . .
RUN SECRET_KEY_BASE_DUMMY=1 ./bin/rails assets:precompile
FROM base
COPY --from=build "${BUNDLE_PATH}" "${BUNDLE_PATH}"
COPY --from=build --chown=${RUID:-1000}:${RGID:-1000} /rails /rails
USER ${RUID:-1000}:${RGID-1000}
ENTRYPOINT ["/rails/bin/docker-entrypoint"]
EXPOSE 3000
CMD ["./bin/rails", "server"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [base 1/2] FROM registry.docker.com/library/ruby:3.3.5-slim@sha256:… ← 
    1 [base 2/2] WORKDIR /rails ← 0
        mkdir /rails None
    2 [internal] load build context ← 
    3 [build 1/4] COPY Gemfile Gemfile.lock ./ ← 1 2
        1:Gemfile → /rails/
        1:Gemfile.lock → /rails/
    4 [build 2/4] RUN bundle install &&     rm -rf ~/.bundle/ "/usr/local/bundle"/ruby/*/cache "/usr/local/bundle"/ruby/*/bundler/gems/*/.git ← 3
    5 [build 3/4] COPY . . ← 4 2
        1:. → /rails/
    6 [build 4/4] RUN SECRET_KEY_BASE_DUMMY=1 ./bin/rails assets:precompile ← 5
    7 [stage-2 1/2] COPY --from=build /usr/local/bundle /usr/local/bundle ← 1 6
        1:/usr/local/bundle → /usr/local/bundle
    8 [stage-2 2/2] COPY --from=build --chown=1000:1000 /rails /rails ← 7 6
        1:/rails → /rails chown=1000:1000
    linux/amd64: 8, layers [1, 7, 8]
      + WORKDIR /rails
      ENV RAILS_ENV=production BUNDLE_DEPLOYMENT=1 BUNDLE_PATH=/usr/local/bundle
      + COPY /usr/local/bundle /usr/local/bundle # buildkit
      + COPY --chown=1000:1000 /rails /rails # buildkit
      USER 1000:1000
      ENTRYPOINT ["/rails/bin/docker-entrypoint"]
      EXPOSE [3000/tcp]
      CMD ["./bin/rails" "server"]
    "#);
}

#[test]
fn a_shop_with_named_contexts_and_numbers() {
    let text = r#"FROM named AS one
COPY --from=named /a /a
FROM one AS 2nd
"#;
    let source = rbuild_parser::Source::new("Dockerfile", text);
    assert!(rbuild_parser::parse(&source).has_errors());
    let text = "FROM named AS one\nCOPY --from=named /a /a\nFROM one\nCOPY --from=0 /b /b\nCOPY --from=ONE /c /c\n\
        RUN --mount=from=one,target=/m --mount=from=named,target=/n true\n";
    let files = NamedContext::Files(Source::Context(ContextSource { name: "named".into() }));
    insta::assert_snapshot!(show(&plan_for(text, &goal(), Some(files)).unwrap()), @r#"
    0 [context named] load from client ← 
    1 [context named] load from client ← - 0
        1:/ → /
    2 [one 1/2] COPY --from=named /a /a ← 1 0
        1:/a → /a
    3 [stage-1 1/3] COPY --from=0 /b /b ← 2 2
        1:/b → /b
    4 [stage-1 2/3] COPY --from=ONE /c /c ← 3 2
        1:/c → /c
    5 [stage-1 3/3] RUN --mount=from=one,target=/m --mount=from=named,target=/n true ← 4 2 0
        /m Bind { input: Some(1), source: "/", writable: false }
        /n Bind { input: Some(2), source: "/", writable: false }
    linux/amd64: 5, layers [1, 2, 3, 4, 5]
      + COPY /a /a # buildkit
      + COPY /b /b # buildkit
      + COPY /c /c # buildkit
      + RUN /bin/sh -c true # buildkit
      + [stage-1 3/3] RUN --mount=from=one,target=/m --mount=from=named,target=/n true
    "#);
}

#[test]
fn a_blog_that_quotes_in_every_way() {
    let text = r#"FROM php:8.3-apache
ENV A=a\ b B='$A "q"' C="$A 'q' \"x\" \$A \n" D=$A$B E=x"y"'z'\"
ENV F $A  "and  more" \
   lines
LABEL "k e y"="v"  'single'=w  a\ b=c  "$A"=d
WORKDIR "/srv/$A"
COPY "ab" 'c'd e\\f $A/g /dst/
COPY ["$A", "\"q\"", "/dst/$E/"]
USER "$A":'g'
VOLUME "/data/$A" /plain
ARG Q="$B" R='$B' S=\$B
RUN echo "$A" '$B' \$C "${D:-x}" $Q
CMD ["sh", "-c", "echo \"$A\" \u00e9 \/"]
"#;
    insta::assert_snapshot!(show(&plan(text, &goal())), @r#"
    0 [1/5] FROM docker.io/library/php:8.3-apache@sha256:… ← 
    1 [2/5] WORKDIR /srv/a b ← 0
        mkdir /srv/a b None
    2 [internal] load build context ← 
    3 [3/5] COPY ab cd e\f a b/g /dst/ ← 1 2
        1:ab → /dst/
        1:cd → /dst/
        1:e\f → /dst/
        1:a b/g → /dst/
    4 [4/5] COPY [a b, "q", /dst/xyz"/] ← 3 2
        1:a b → /dst/xyz"/
        1:q → /dst/xyz"/
    5 [5/5] RUN echo "a b" '$B' $C "x" $A "q" ← 4
    linux/amd64: 5, layers [1, 3, 4, 5]
      ENV A=a b B=$A "q" C= 'q' "x" $A \n D= E=xyz"
      ENV F=a b  and  more    lines
      LABEL k e y=v single=w a b=c a b=d
      + WORKDIR /srv/a b
      + COPY ab cd e\f a b/g /dst/ # buildkit
      + COPY a b q /dst/xyz"/ # buildkit
      USER a b:g
      VOLUME [/data/a b /plain]
      ARG Q=$A "q" R=$B S=$B
      + RUN |3 Q=$A "q" R=$B S=$B /bin/sh -c echo "$A" '$B' \$C "${D:-x}" $Q # buildkit
      CMD ["sh" "-c" "echo \"$A\" é /"]
    "#);
}

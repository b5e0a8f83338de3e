# syntax=docker/dockerfile:1
FROM python:3.12-slim AS deps
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf,required=true \
    --mount=type=cache,target=/root/.cache/pip \
    pip install -r https://internal.example.org/requirements.txt
RUN --mount=type=secret,id=token,env=API_TOKEN curl -H "Authorization: Bearer $API_TOKEN" https://api.example.org
RUN --mount=type=secret,source=aws,target=/root/.aws/credentials,mode=0400,uid=1000,gid=1000 aws s3 ls
RUN --mount=type=ssh,id=default,required git clone git@git.example.org:group/project.git /src
RUN --mount=type=bind,from=deps,source=/src,target=/mnt,rw --mount="type=tmpfs,target=/scratch,size=64m" --security=sandbox make -C /mnt
ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.14.1 /buildkit
ADD --unpack=false https://example.org/archive.tar.gz /archives/
HEALTHCHECK NONE

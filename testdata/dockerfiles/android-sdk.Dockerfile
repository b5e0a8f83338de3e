FROM ubuntu:22.04
ARG ANDROID_SDK_VERSION=11076708
ENV ANDROID_HOME="/opt/android-sdk" ANDROID_SDK_ROOT="/opt/android-sdk"
ENV PATH="$PATH:$ANDROID_HOME/cmdline-tools/latest/bin:$ANDROID_HOME/platform-tools"
RUN dpkg --add-architecture i386 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
      openjdk-17-jdk-headless unzip wget libc6:i386 libstdc++6:i386 zlib1g:i386 \
  && rm -rf /var/lib/apt/lists/*
RUN wget -q "https://dl.example.org/commandlinetools-linux-${ANDROID_SDK_VERSION}_latest.zip" -O /tmp/tools.zip \
  && mkdir -p ${ANDROID_HOME}/cmdline-tools \
  && unzip -qq /tmp/tools.zip -d ${ANDROID_HOME}/cmdline-tools \
  && mv ${ANDROID_HOME}/cmdline-tools/cmdline-tools ${ANDROID_HOME}/cmdline-tools/latest \
  && rm -v /tmp/tools.zip
RUN yes | sdkmanager --licenses >/dev/null; \
    sdkmanager --install "platform-tools" "platforms;android-34" "build-tools;34.0.0"
RUN --mount=type=tmpfs,target=/tmp,size=512m --mount=type=cache,target=/root/.gradle,id=gradle-$ANDROID_SDK_VERSION,sharing=private gradle --version || true

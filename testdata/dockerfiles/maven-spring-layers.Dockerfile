FROM maven:3.9-eclipse-temurin-21 AS build
WORKDIR /workspace
COPY pom.xml ./
COPY .mvn .mvn
RUN --mount=type=cache,id=m2,target=/root/.m2 mvn -B -q dependency:go-offline
COPY src src
RUN --mount=type=cache,id=m2,target=/root/.m2 mvn -B -q package -DskipTests \
 && java -Djarmode=layertools -jar target/*.jar extract --destination target/extracted

FROM eclipse-temurin:21-jre
LABEL org.opencontainers.image.title="orders" \
      org.opencontainers.image.description="The \"orders\" service" \
      org.opencontainers.image.licenses='Apache-2.0'
RUN groupadd --system spring && useradd --system --gid spring spring
USER spring:spring
ARG EXTRACTED=/workspace/target/extracted
COPY --from=build ${EXTRACTED}/dependencies/ ./
COPY --from=build ${EXTRACTED}/spring-boot-loader/ ./
COPY --from=build ${EXTRACTED}/snapshot-dependencies/ ./
COPY --from=build ${EXTRACTED}/application/ ./
ENTRYPOINT ["java","org.springframework.boot.loader.launch.JarLauncher"]

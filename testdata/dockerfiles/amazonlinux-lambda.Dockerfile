ARG FUNCTION_DIR="/function"
FROM public.ecr.aws/lambda/python:3.12 AS base
ARG FUNCTION_DIR
RUN mkdir -p ${FUNCTION_DIR}
COPY app/* ${FUNCTION_DIR}/
RUN pip install --target ${FUNCTION_DIR} awslambdaric==2.0.12
FROM public.ecr.aws/amazonlinux/amazonlinux:2023
ARG FUNCTION_DIR
WORKDIR ${FUNCTION_DIR}
COPY --from=base ${FUNCTION_DIR} ${FUNCTION_DIR}
ENTRYPOINT [ "/usr/bin/python3", "-m", "awslambdaric" ]
CMD [ "app.handler" ]

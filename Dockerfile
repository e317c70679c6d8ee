# A GPU server:  docker build -t my-vllm .
#                docker run --gpus all --ipc=host -p 8000:8000 -v ~/.cache/huggingface:/models -e HF_HOME=/models my-vllm --model MODEL
# Arguments after the image's name are those of `vllm serve`, as with the image vllm/vllm-openai. For the CPU: docker/Dockerfile.cpu
# The base brings Python, torch and CUDA's libraries; this adds less than 300 MB and keeps that torch.
ARG BASE_IMAGE=pytorch/pytorch:2.11.0-cuda13.0-cudnn9-runtime
ARG BUILD_IMAGE=python:3.12-slim

FROM ${BUILD_IMAGE} AS wheel
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps -w /wheels .

# The user chooses the base, so its tag stands in the argument above.
# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
COPY docker/install.sh /opt/vllm/install.sh
COPY --from=wheel /wheels /opt/vllm/wheels
RUN sh /opt/vllm/install.sh /opt/vllm/wheels with-compiler
# why: a container has its own network; 127.0.0.1 inside could not be reached from the host.
ENTRYPOINT ["vllm", "serve", "--host", "0.0.0.0"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

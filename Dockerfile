# The command `slowfast` for the CPU, without root. docs/DEPLOYMENT.md describes its use.
FROM python:3.12-slim AS build

# Index of PyTorch's CPU builds for a small image; the default index has builds with CUDA libraries.
ARG TORCH_INDEX=""
ARG TORCH="torch==2.13.0"
ARG EXTRAS="onnx,plots,safetensors"

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/slowfast
ENV PATH="/opt/slowfast/bin:$PATH"
# PyTorch first: its layer stays valid when the code changes. TORCH has the version.
# hadolint ignore=DL3013
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY slowfast ./slowfast
COPY configs ./configs
# pyproject.toml has the versions.
# hadolint ignore=DL3013
RUN pip install ".[$EXTRAS]"


FROM python:3.12-slim

# Libraries of OpenCV. Their versions are those of the Debian release of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 slowfast \
    && install --directory --owner=slowfast /data
COPY --from=build /opt/slowfast /opt/slowfast
# Also for `docker run --user`: a cache that any user may create.
ENV PATH="/opt/slowfast/bin:$PATH" XDG_CACHE_HOME=/tmp/cache PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
ENTRYPOINT ["slowfast"]
CMD ["--help"]

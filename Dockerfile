# `dfl serve` in a container: docs/serve.md. Needs nothing but this checkout, and PyPI and PyTorch's index while it is built.
#   docker build -t dfl .                             CPU
#   docker build -t dfl --build-arg DEVICE=cuda .     with torch for CUDA, which PyPI has
FROM python:3.12-slim

ARG DEVICE=cpu
ENV MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# torch first: it is most of the image, and stays a layer of its own when the code changes
RUN case "$DEVICE" in \
      cpu) pip install "torch>=2.11,<2.16" "torchvision>=0.26" --index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) pip install "torch>=2.11,<2.16" "torchvision>=0.26" ;; \
      *) echo "DEVICE is $DEVICE, and must be cpu or cuda" >&2; exit 1 ;; \
    esac

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY dfl dfl
# hadolint ignore=DL3013
RUN pip install ".[serve,heif,metadata]" && rm -rf /src/* && useradd --uid 10001 --create-home dfl

USER 10001
WORKDIR /home/dfl
EXPOSE 8000
# loading a large detector takes its time
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# all addresses of the container, so DFL_API_KEY must be set: docker run -e DFL_API_KEY=...
ENTRYPOINT ["dfl", "serve", "--host=0.0.0.0"]
CMD ["--ckpt_path=/model/best.ckpt"]

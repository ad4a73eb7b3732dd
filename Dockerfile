# CUDA: docker build -t clipeval .              docker run --gpus all -v "$PWD:/work" -v clipeval:/cache clipeval run ...
# CPU:  docker build -t clipeval:cpu --build-arg TORCH_INDEX=(the address of PyTorch's CPU wheels) .
FROM python:3.12-slim
ARG TORCH_INDEX=
ARG EXTRAS=demo
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE benchmarks.yaml ./
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
    fi
COPY results/published results/published
COPY clipeval clipeval
COPY clipeval_train clipeval_train
RUN pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" && useradd --create-home clipeval \
    && install -d -o clipeval /cache /work
ENV CLIPEVAL_CACHE=/cache HF_HOME=/cache/huggingface
USER clipeval
WORKDIR /work
ENTRYPOINT ["clipeval"]

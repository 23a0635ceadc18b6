# Ackgate in a container: docker run --read-only --stop-timeout 15 -v ackgate:/var/lib/ackgate …
# With the extra `ackgate[postgres]`, and without `ackgate[simulator]`: a simulator in it serves with
# --no-tls alone.
# The stop time-out covers drain_seconds and shutdown_seconds. Everything comes from the locks, as
# they are. Python 3.13 is the newest that .ci/run tries; it has security fixes until October 2029,
# Debian trixie until August 2028.

FROM python:3.13-slim-trixie AS wheel
WORKDIR /source
COPY requirements/dev.txt requirements/dev.txt
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
    --requirement requirements/dev.txt \
    && pip check
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.13-slim-trixie AS packages
COPY requirements/postgres.txt /requirements.txt
RUN python -m venv /opt/ackgate \
    && /opt/ackgate/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps \
    --require-hashes --requirement /requirements.txt
COPY --from=wheel /wheels /wheels
RUN /opt/ackgate/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps \
    /wheels/*.whl \
    && /opt/ackgate/bin/pip check

FROM python:3.13-slim-trixie
# The root file system may be read-only: nothing but the volume is written to.
ENV PATH="/opt/ackgate/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ACKGATE_CONFIG=/etc/ackgate/ackgate.toml
COPY --from=packages /opt/ackgate /opt/ackgate
COPY config/ackgate.toml /etc/ackgate/ackgate.toml
COPY deploy/healthcheck.py /opt/ackgate/healthcheck.py
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/ackgate
# Relative paths, such as the database's var/ackgate.db, land on the volume.
WORKDIR /var/lib/ackgate
VOLUME /var/lib/ackgate
USER 10001:10001
# It listens on 127.0.0.1 until ACKGATE_SERVER__HOST says otherwise, which needs a key and tokens.
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/ackgate/healthcheck.py"]
ENTRYPOINT ["ackgate"]
CMD ["serve"]

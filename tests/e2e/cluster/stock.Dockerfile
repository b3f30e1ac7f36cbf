# An image as people have it: Debian's Python, torch and numpy, and no word of Drivetrain. From our own one, whose gigabytes
# are there already: what torch does not need is taken out again, and `python`, so that there is only a `python3`.
ARG WORKER_IMAGE
FROM ${WORKER_IMAGE}
USER 0
RUN python -m pip freeze --all | sed 's/ @ .*//; s/==.*//' \
  | grep -vixE 'pip|torch|triton|numpy|nvidia-.*|cuda-.*|filelock|fsspec|jinja2|markupsafe|mpmath|networkx|sympy|typing.extensions|setuptools' \
  | xargs python -m pip uninstall --yes --quiet --root-user-action=ignore \
 && rm -r /workspace/examples /opt/drivetrain/bin/python /usr/local/bin/python \
 && ln -sf /usr/bin/python3 /opt/drivetrain/bin/python3
# Is it one?
RUN ! command -v python && ! command -v drivetrain-launcher \
 && for name in drivetrain drivetrain_api pydantic aiohttp zstandard; do ! python3 -c "import $name" 2> /dev/null || exit 1; done \
 && python3 -c "import torch, numpy"
USER 1000:1000
ENTRYPOINT []
CMD ["python3"]

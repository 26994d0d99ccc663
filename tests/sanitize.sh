#!/usr/bin/env bash
# The native operations under the address and undefined-behaviour sanitizers: every test that computes with them,
# with a library compiled for it. Needs g++ and its sanitizer libraries; ends with the tests' exit code.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
export CXX="env LD_PRELOAD= g++" CXXFLAGS="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
# The compiler itself goes without: it would take twice as long.
# JAX's own memory is not the matter: leaks are not looked for, and what it does before main is let be.
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0 LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
exec "$python" -m pytest -q -s -n 2 -p no:cacheprovider --hypothesis-profile=few tests/test_ops.py \
  -k "not lax and not jax and not compiler and not one_line and not cut_short and not gpus and not triton"

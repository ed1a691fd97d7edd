# Sourced by the scripts: makes .venv/ in the checkout, with `gateway` in it, from the hash-pinned locks.
# Needs only python3 (3.11 or newer) with venv; `uv` is itself installed from a hash-pinned lock.

say() { printf '\033[2m· %s\033[0m\n' "$*" >&2; }

python_for_venv() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  echo "Python 3.11 or newer with venv is needed (Debian: apt-get install python3 python3-venv)" >&2
  return 1
}

ensure_uv() {
  UV="$PWD/.venv-uv/bin/uv"
  if ! cmp -s requirements-uv.lock .venv-uv/lock; then
    say "installing uv"
    "$(python_for_venv)" -m venv --clear .venv-uv
    .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
    cp requirements-uv.lock .venv-uv/lock
  fi
}

# ensure_venv LOCKFILE: brings .venv/ to exactly what the lock says; does nothing when it is already there.
ensure_venv() {
  local lock=$1 key
  key=$(cat "$lock" pyproject.toml | sha256sum)
  [ "$(cat .venv/lock 2>/dev/null)" = "$key" ] && return
  ensure_uv
  [ -x .venv/bin/python ] || "$UV" venv --quiet --python "$(command -v "$(python_for_venv)")" .venv
  say "installing $(grep -c '==' "$lock") pinned packages"
  "$UV" pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
  "$UV" pip install --quiet --no-deps --no-build-isolation --python .venv/bin/python -e .
  echo "$key" > .venv/lock
}

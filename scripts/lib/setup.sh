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

lock_key() { echo "$1 $(cat "$1" pyproject.toml | sha256sum)"; }

# ensure_venv LOCKFILE: brings .venv/ to exactly what the lock says; does nothing when it is already there.
ensure_venv() {
  local lock=$1 key
  key=$(lock_key "$lock")
  [ "$(cat .venv/lock 2>/dev/null)" = "$key" ] && return
  ensure_uv
  [ -x .venv/bin/python ] || "$UV" venv --quiet --python "$(command -v "$(python_for_venv)")" .venv
  say "installing $(grep -c '==' "$lock") pinned packages"
  "$UV" pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
  "$UV" pip install --quiet --no-deps --no-build-isolation --python .venv/bin/python -e .
  echo "$key" > .venv/lock
}

# For use rather than development: a .venv/ that has the development packages keeps them.
ensure_venv_for_use() {
  case "$(cat .venv/lock 2>/dev/null)" in
    requirements-dev.lock*) ensure_venv requirements-dev.lock ;;
    *) ensure_venv requirements.lock ;;
  esac
}

# Environments of the client suites, one each in .venv-clients/NAME, made again when their lock changes.
ensure_python_client() { ensure_apart "$1" "tests/clients/$1/requirements.lock"; }

# The vocabularies and weights that scripts/test --full counts tokens with.
ensure_tables() { ensure_apart tables tests/full/tables/requirements.lock; }

ensure_apart() {
  local name=$1 lock=$2 home=.venv-clients/$1
  cmp -s "$lock" "$home/lock" && return
  ensure_uv
  say "installing $name"
  "$UV" venv --quiet --clear --python "$(command -v "$(python_for_venv)")" "$home"
  "$UV" pip sync --quiet --require-hashes --python "$home/bin/python" "$lock"
  cp "$lock" "$home/lock"
}

# The parsers that deploy/ is held against: of compose files, charts, manifests, Dockerfiles, and custom resources.
ensure_deploy() { ensure_apart deploy tests/deploy/requirements.lock; }
ensure_deploy_crds() { ensure_node deploy-crds tests/deploy/crds; }

ensure_node_client() { ensure_node "$1" "tests/clients/$1"; }

ensure_node() {
  local name=$1 source=$2 home=.venv-clients/$1
  cmp -s "$source/package-lock.json" "$home/lock" && return
  say "installing $name"
  mkdir -p "$home"
  cp "$source/package.json" "$source/package-lock.json" .npmrc "$home/"
  (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  cp "$source/package-lock.json" "$home/lock"
}

# What draws dashboards, in .venv-render/: Grafana's component library, a bundler, and a driver for Chromium.
ensure_render() {
  local source=grafana/render home=.venv-render
  mkdir -p "$home"
  if ! cmp -s "$source/package-lock.json" "$home/lock"; then
    say "installing Grafana's component library"
    cp "$source/package.json" "$source/package-lock.json" .npmrc "$home/"
    (cd "$home" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$source/package-lock.json" "$home/lock"
  fi
  cp "$source"/*.js "$source"/*.jsx "$source"/*.mjs "$home/"
}

# Sourced by the other scripts: messages, and which PostgreSQL server this machine has.
# shellcheck shell=bash

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The oldest PostgreSQL that the migrations are written for.
oldest_postgres=14

# Prints the folder of the first `initdb` and `postgres` that are new enough: PATH first, then what `pg_config` names,
# then the places where packages put servers (Debian keeps them out of PATH), the newest first.
find_postgres() {
  local folder folders version major
  folders=$(
    if command -v postgres >/dev/null; then dirname "$(command -v postgres)"; fi
    if command -v pg_config >/dev/null; then pg_config --bindir; fi
    printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql*/ \
      /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
      /Applications/Postgres.app/Contents/Versions/*/bin |
      sed -E 's/^[^0-9]*([0-9]+).*$/\1 &/' | sort -rn | cut -d' ' -f2-
  )
  while IFS= read -r folder; do
    [[ -x $folder/initdb && -x $folder/postgres ]] || continue
    version=$("$folder/postgres" --version 2>/dev/null) || continue
    major=${version#*(PostgreSQL) }
    major=${major%%[!0-9]*}
    if [[ -n $major ]] && ((major >= oldest_postgres)); then
      printf '%s\n' "$folder"
      return
    fi
  done <<<"$folders"
  return 1
}

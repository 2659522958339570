#!/bin/sh
# secret.sh FOLDER COMMAND…: makes a password in FOLDER, once, and becomes COMMAND. PostgreSQL and MinIO start with it, so
# that no password stands in the repository and every installation has its own. The server reads the files.
set -eu
folder=$1
shift

if [ ! -s "$folder/password" ]; then
  # Read by the server, as another user; the volume is mounted into nothing else.
  umask 022
  # 48 hex digits: no character that a URL, an INI file or a shell would read in its own way.
  password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  [ "${#password}" -eq 48 ]
  # As the AWS SDK takes it (AWS_SHARED_CREDENTIALS_FILE). The user's name is MINIO_ROOT_USER; PostgreSQL has no use for it.
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
    "${MINIO_ROOT_USER-}" "$password" >"$folder/credentials"
  # Last, in one step: whoever is stopped in the middle begins again.
  printf '%s' "$password" >"$folder/password.new"
  mv "$folder/password.new" "$folder/password"
fi

if [ -n "${MINIO_ROOT_USER-}" ]; then
  MINIO_ROOT_PASSWORD=$(cat "$folder/password")
  export MINIO_ROOT_PASSWORD
fi
exec "$@"

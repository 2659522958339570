#!/bin/sh
# What `helm test` runs: does the server answer, does it refuse strangers, and with a key, does a tiny release go up, come
# down with the same bytes, also by HTTP/1.0 as printers ask, and away again? Nothing is rolled out.
set -eu
image=${IMAGE:-/test/image.bin}
key=${KEY_FILE:-/key/api-key}
tmp=${TMPDIR:-/tmp}

say() { printf '%s\n' "$*"; }
die() {
  say "FAILED: $*" >&2
  exit 1
}
# Prints the status; the body goes to a file.
ask() { curl -sS --max-time 30 --retry 3 --retry-connrefused -o "$tmp/body" -w '%{http_code}' "$@"; }

status=$(ask "$URL/api/openapi.json")
[ "$status" = 200 ] || die "GET $URL/api/openapi.json answers $status"
say "ok: the server answers"
status=$(ask "$URL/api/firmware")
[ "$status" = 401 ] || die "GET /api/firmware without a key answers $status, not 401: is AUTH off?"
say "ok: strangers are refused"

if [ ! -s "$key" ]; then
  say "no key: set tests.existingSecret to try a release as well"
  exit 0
fi
# In a file, so that it stands in no list of processes.
printf 'X-API-Key: %s' "$(cat "$key")" >"$tmp/header"
version="0.0.0-helmtest.$(date +%s)"
release="$URL/api/firmware/$version?channel=canary"
sum=$(md5sum <"$image" | cut -d' ' -f1)

uploaded=''
finish() {
  status=$?
  if [ -n "$uploaded" ]; then
    gone=$(ask -H "@$tmp/header" -X DELETE "$release") || true
    if [ "$gone" = 204 ] || [ "$gone" = 200 ]; then
      say "ok: $version is deleted"
    else
      say "FAILED: DELETE answers $gone: $(cat "$tmp/body")" >&2
      status=1
    fi
  fi
  exit "$status"
}
trap finish EXIT

status=$(ask -H "@$tmp/header" -F "file=@$image" -F "version=$version" -F channel=canary "$URL/api/firmware/upload")
[ "$status" = 201 ] || [ "$status" = 200 ] || die "the upload answers $status: $(cat "$tmp/body")"
uploaded=yes
say "ok: $version is uploaded"
for http in --http1.1 --http1.0; do
  status=$(ask $http -H "@$tmp/header" "$URL/api/firmware/download/$version?channel=canary")
  [ "$status" = 200 ] || die "the download with $http answers $status: $(cat "$tmp/body")"
  [ "$(md5sum <"$tmp/body" | cut -d' ' -f1)" = "$sum" ] || die "the download with $http brought other bytes"
  say "ok: downloaded with $http, the same bytes"
done

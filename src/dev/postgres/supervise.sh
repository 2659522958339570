# Runs a PostgreSQL server for as long as somebody holds the other end of our standard input, so that no server is
# left behind whichever way its owner goes. Called as: sh -c "$(this file)" sh SOCKET_FOLDER POSTGRES ARGUMENTS...
#
# It runs in a process group of its own: Ctrl-C at the terminal reaches the owner only, who closes the pipe when the
# last query is done. INT is what PostgreSQL calls a fast shutdown: roll back, write a checkpoint, leave.
sockets=$1
shift
exec 3<&0

"$@" </dev/null 3<&- &
server=$!
trap 'kill -INT "$server"' TERM HUP INT

# `read` and not `cat`: a builtin leaves no child behind when the watcher is no longer needed.
{ trap - TERM HUP INT; read -r _; kill -INT "$server"; } <&3 3<&- &
watcher=$!
exec 0</dev/null 3<&-

# A trapped signal ends `wait` early, so ask again until the server has really gone.
wait "$server"
status=$?
while kill -0 "$server" 2>/dev/null; do
  wait "$server"
  status=$?
done
kill "$watcher" 2>/dev/null
rm -rf "$sockets"
exit "$status"

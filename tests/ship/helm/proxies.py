"""nginx, HAProxy, Traefik and Envoy, configured as the controllers would do it of the examples' values and objects."""

import json
import os
import socket
import urllib.request

import yaml
from chartkit import EXAMPLE_SETS, EXAMPLES, Process, load, one, render, tool


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(port):
    """Through to the server: a proxy that listens may not have its routes yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/openapi.json", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def load_all(path):
    return list(yaml.safe_load_all((EXAMPLES / path).read_text()))


def annotations(example, prefix):
    found = one(render(EXAMPLE_SETS[example]), "Ingress")["metadata"]["annotations"]
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def nginx(port, upstream, folder, ours=True):
    """As ingress-nginx writes a location. `ours=False` is what it makes of an Ingress without annotations."""
    defaults = {
        "proxy-read-timeout": "60", "proxy-send-timeout": "60", "proxy-body-size": "1m", "proxy-request-buffering": "on",
        "proxy-buffering": "off", "proxy-http-version": "1.1", "proxy-next-upstream": "error timeout",
        "proxy-next-upstream-tries": "3",
    }
    said = {**defaults, **(annotations("nginx/values", "nginx.ingress.kubernetes.io/") if ours else {})}
    path = folder / "nginx.conf"
    path.write_text(f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 4096; }}
        http {{
          access_log off; gzip off;
          client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
          uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
          map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
          upstream server {{ server 127.0.0.1:{upstream}; keepalive 32; }}
          server {{
            listen 127.0.0.1:{port};
            location / {{
              proxy_pass http://server;
              proxy_http_version {said["proxy-http-version"]};
              proxy_set_header Host $http_host;
              proxy_set_header Upgrade $http_upgrade;
              proxy_set_header Connection $connection_upgrade;
              proxy_set_header X-Forwarded-For $remote_addr;
              proxy_read_timeout {said["proxy-read-timeout"]}s;
              proxy_send_timeout {said["proxy-send-timeout"]}s;
              client_max_body_size {said["proxy-body-size"]};
              proxy_request_buffering {said["proxy-request-buffering"]};
              proxy_buffering {said["proxy-buffering"]};
              proxy_next_upstream {said["proxy-next-upstream"]};
              proxy_next_upstream_tries {said["proxy-next-upstream-tries"]};
            }}
          }}
        }}
    """)
    return Process(tool("nginx"), "-e", "stderr", "-c", path, "-p", folder)


def haproxy(port, upstream, folder):
    """As the controller writes defaults and a backend."""
    said = annotations("haproxy/values", "haproxy.org/")
    settings = load(EXAMPLES / "haproxy" / "controller-values.yaml")["controller"]["config"]
    snippet = "\n          ".join(said["backend-config-snippet"].strip().splitlines())
    path = folder / "haproxy.cfg"
    path.write_text(f"""
        global
          maxconn 4096
          hard-stop-after {settings["hard-stop-after"]}
        defaults
          mode http
          option redispatch
          timeout http-request {settings["timeout-http-request"]}
          timeout connect {settings["timeout-connect"]}
          timeout client {settings["timeout-client"]}
          timeout queue 5s
          timeout server {said["timeout-server"]}
          timeout tunnel {settings["timeout-tunnel"]}
          timeout http-keep-alive 1m
        frontend http
          bind 127.0.0.1:{port}
          default_backend server
        backend server
          balance {said["load-balance"]}
          option forwardfor
          {snippet}
          server SRV_1 127.0.0.1:{upstream}
""")
    return Process(tool("haproxy"), "-db", "-f", path)


def traefik(port, upstream, folder, ours=True):
    """Its static settings from the values of its chart, a router and the ServersTransport as its providers make them."""
    entry = {"address": f"127.0.0.1:{port}"}
    if ours:
        entry["transport"] = load(EXAMPLES / "traefik" / "controller-values.yaml")["ports"]["web"]["transport"]
    transport = load(EXAMPLES / "traefik" / "objects.yaml")["spec"]
    (folder / "dynamic.yaml").write_text(yaml.safe_dump({"http": {
        "routers": {"ota": {"rule": "PathPrefix(`/`)", "entryPoints": ["web"], "service": "ota"}},
        "services": {"ota": {"loadBalancer": {
            "servers": [{"url": f"http://127.0.0.1:{upstream}"}], "serversTransport": "ota",
        }}},
        "serversTransports": {"ota": transport},
    }}))
    (folder / "traefik.yaml").write_text(yaml.safe_dump({
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "entryPoints": {"web": entry},
        "providers": {"file": {"filename": str(folder / "dynamic.yaml"), "watch": False}},
    }))
    return Process(tool("traefik"), f"--configFile={folder}/traefik.yaml")


def envoy_routes(route, cluster, retry, ours):
    """Rules of an HTTPRoute, as Envoy Gateway translates them: 15 seconds unless a rule says otherwise."""
    for rule in route["spec"]["rules"]:
        timeouts = rule.get("timeouts", {}) if ours else {}
        for match in rule["matches"]:
            assert match["path"]["type"] == "PathPrefix"
            prefix = match["path"]["value"]
            yield {
                "match": {"prefix": "/"} if prefix == "/" else {"path_separated_prefix": prefix},
                "route": {
                    "cluster": cluster,
                    "timeout": timeouts.get("request", "15s"),
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "retry_policy": retry,
                },
            }


def envoy(port, upstream, folder, ours=True):
    objects = load_all("envoy-gateway/objects.yaml")
    client = one(objects, "ClientTrafficPolicy")["spec"]
    policies = {thing["spec"]["targetRefs"][0]["name"]: thing["spec"] for thing in objects if thing["kind"] == "BackendTrafficPolicy"}
    backend = next(iter(policies.values()))
    routes = [thing for thing in render(EXAMPLE_SETS["envoy-gateway/values"]) if thing["kind"] == "HTTPRoute"]
    # The longest prefix first, as gateways do.
    routes.sort(key=lambda route: any(match["path"]["value"] == "/" for rule in route["spec"]["rules"] for match in rule["matches"]))
    http1 = client["http1"] if ours else {}
    options = {}
    if "http10" in http1:
        options["accept_http_10"] = True
    if http1.get("preserveHeaderCase"):
        options["header_key_format"] = {"stateful_formatter": {"name": "preserve_case", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"}}}
    # Envoy's own, unless told otherwise.
    limits = backend["circuitBreaker"] if ours else dict.fromkeys(("maxConnections", "maxPendingRequests", "maxParallelRequests"), 1024)
    def retry(route):
        said = policies[route["metadata"]["name"]]["retry"]
        return {
            "num_retries": said["numRetries"],
            "retry_on": ",".join(said["retryOn"]["triggers"]),
            "retriable_status_codes": said["retryOn"].get("httpStatusCodes", []),
        }

    patch = one(load_all("envoy-gateway/patch.yaml"), "EnvoyPatchPolicy")["spec"]["jsonPatches"][0]["operation"]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_protocol_options": options,
        "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": "ota", "domains": ["*"], "routes": [
            one_ for route in routes for one_ in envoy_routes(route, "server", retry(route), ours)]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    }
    if ours:
        manager[patch["path"].rsplit("/", 1)[-1]] = patch["value"]
    address = lambda number: {"socket_address": {"address": "127.0.0.1", "port_value": number}}  # noqa: E731
    config = {"static_resources": {
        "listeners": [{
            "name": "http", "address": address(port),
            # As Envoy Gateway sets them.
            "per_connection_buffer_limit_bytes": 32768,
            # Small (SO_SNDBUF), or the kernel takes an image's end in for a client that pauses.
            "socket_options": [{"level": 1, "name": 7, "int_value": 8192, "state": "STATE_LISTENING"}],
            "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{
            "name": "server", "type": "STATIC", "connect_timeout": "5s", "lb_policy": "ROUND_ROBIN",
            "per_connection_buffer_limit_bytes": 32768,
            "circuit_breakers": {"thresholds": [{
                "max_connections": limits["maxConnections"], "max_pending_requests": limits["maxPendingRequests"],
                "max_requests": limits["maxParallelRequests"]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {key: options[key] for key in ("header_key_format",) if key in options}}}},
            "load_assignment": {"cluster_name": "server", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(upstream)}}]}]},
        }],
    }}
    path = folder / "envoy.json"
    path.write_text(json.dumps(config))
    return Process(
        tool("envoy"), "-c", path, "--log-level", "error", "--concurrency", "1", "--disable-hot-restart", "--base-id", str(port))


KINDS = {"nginx": nginx, "haproxy": haproxy, "traefik": traefik, "envoy": envoy}


class Proxy:
    """One of them, running."""

    def __init__(self, kind, server, folder, **how):
        folder.mkdir()
        self.port = free_port()
        self.process = KINDS[kind](self.port, server.port, folder, **how)
        self.process.wait_for(lambda _: answers(self.port))
        self.url = f"http://127.0.0.1:{self.port}"

"""Shapes of what is no part of Kubernetes, as far as the chart and the examples use them: kubernetes-validate does not know
them. A field that stands in none of these is either a slip of the pen or belongs here, after a look at its CRD.

All but Envoy Gateway's three were also held against the whole CRDs once, with the validators of npm's @kubernetes-models
(gateway-api 2.0.0, prometheus-operator 6.0.0, external-secrets 2.0.0, istio 3.0.1, traefik 2.0.0), which need Node."""


def shape(required=(), **properties):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def items(of, least=1, most=None):
    return {"type": "array", "items": of, "minItems": least, **({"maxItems": most} if most else {})}


TEXT = {"type": "string", "minLength": 1}
NUMBER = {"type": "integer"}
FLAG = {"type": "boolean"}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
# Gateway API's own, narrower than Go's.
DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
PROMETHEUS_DURATION = {"type": "string", "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"}
HOST = {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
REF = shape(["group", "kind", "name"], group=TEXT, kind=TEXT, name=TEXT)


def enum(*values):
    return {"enum": list(values)}


SPECS = {
    "gateway.networking.k8s.io/v1 HTTPRoute": shape(
        ["parentRefs", "rules"],
        parentRefs=items(shape(["name"], name=TEXT, namespace=TEXT, sectionName=TEXT, port=PORT, kind=TEXT, group={"type": "string"}), most=32),
        hostnames=items(HOST, most=16),
        rules=items(shape(
            ["matches", "backendRefs"],
            # Eight, as before 1.2.
            matches=items(shape(["path"], path=shape(["type", "value"], type=enum("PathPrefix", "Exact"), value={"type": "string", "pattern": "^/"})), most=8),
            timeouts=shape(request=DURATION, backendRequest=DURATION),
            backendRefs=items(shape(["name", "port"], name=TEXT, port=PORT)),
        ), most=16),
    ),
    "gateway.networking.k8s.io/v1 Gateway": shape(
        ["gatewayClassName", "listeners"],
        gatewayClassName=TEXT,
        listeners=items(shape(
            ["name", "port", "protocol"], name=TEXT, port=PORT, protocol=enum("HTTP", "HTTPS"), hostname=HOST,
            tls=shape(["certificateRefs"], certificateRefs=items(shape(["name"], name=TEXT))))),
    ),
    "monitoring.coreos.com/v1 ServiceMonitor": shape(
        ["selector", "endpoints"],
        selector=shape(["matchLabels"], matchLabels=LABELS),
        namespaceSelector=shape(["matchNames"], matchNames=items(TEXT)),
        endpoints=items(shape(
            ["port"], port=TEXT, path=TEXT, interval=PROMETHEUS_DURATION, scrapeTimeout=PROMETHEUS_DURATION,
            metricRelabelings=items({"type": "object"}))),
    ),
    "monitoring.coreos.com/v1 PrometheusRule": shape(
        ["groups"],
        groups=items(shape(
            ["name", "rules"], name=TEXT, interval=PROMETHEUS_DURATION,
            rules=items(shape(
                ["expr"], alert=TEXT, record=TEXT, expr=TEXT, labels=LABELS, annotations=LABELS,
                keep_firing_for=PROMETHEUS_DURATION, **{"for": PROMETHEUS_DURATION})))),
    ),
    "external-secrets.io/v1 ExternalSecret": shape(
        ["secretStoreRef", "target", "data"],
        refreshInterval=TEXT,
        secretStoreRef=shape(["name", "kind"], name=TEXT, kind=enum("SecretStore", "ClusterSecretStore")),
        target=shape(["name"], name=TEXT, creationPolicy=enum("Owner", "Orphan", "Merge", "None")),
        data=items(shape(["secretKey", "remoteRef"], secretKey=TEXT, remoteRef=shape(["key"], key=TEXT, property=TEXT, version=TEXT))),
    ),
    "gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy": shape(
        ["targetRefs"],
        targetRefs=items(REF),
        http1=shape(http10=shape(useDefaultHost=FLAG), preserveHeaderCase=FLAG),
        connection=shape(connectionLimit=shape(["value"], value=NUMBER)),
    ),
    "gateway.envoyproxy.io/v1alpha1 BackendTrafficPolicy": shape(
        ["targetRefs"],
        targetRefs=items(REF),
        loadBalancer=shape(["type"], type=enum("RoundRobin", "LeastRequest", "Random", "ConsistentHash")),
        circuitBreaker=shape(maxConnections=NUMBER, maxPendingRequests=NUMBER, maxParallelRequests=NUMBER, maxParallelRetries=NUMBER),
        retry=shape(numRetries=NUMBER, retryOn=shape(
            triggers=items(enum("connect-failure", "retriable-status-codes", "5xx", "reset", "gateway-error")), httpStatusCodes=items(NUMBER))),
    ),
    "gateway.envoyproxy.io/v1alpha1 EnvoyPatchPolicy": shape(
        ["targetRef", "type", "jsonPatches"],
        targetRef=REF,
        type=enum("JSONPatch"),
        jsonPatches=items(shape(
            ["type", "name", "operation"], type=TEXT, name=TEXT,
            operation=shape(["op", "path"], op=enum("add", "remove", "replace"), path=TEXT, value={}))),
    ),
    "traefik.io/v1alpha1 ServersTransport": shape(
        forwardingTimeouts=shape(dialTimeout=DURATION, responseHeaderTimeout=DURATION, idleConnTimeout=DURATION)),
    "networking.istio.io/v1alpha3 EnvoyFilter": shape(
        ["workloadSelector", "configPatches"],
        workloadSelector=shape(["labels"], labels=LABELS),
        configPatches=items(shape(
            ["applyTo", "match", "patch"],
            applyTo=enum("NETWORK_FILTER"),
            match=shape(context=enum("GATEWAY"), listener=shape(filterChain=shape(filter=shape(name=TEXT)))),
            patch=shape(["operation", "value"], operation=enum("MERGE"), value={"type": "object"}))),
    ),
    "networking.istio.io/v1 DestinationRule": shape(
        ["host"],
        host=TEXT,
        trafficPolicy=shape(
            loadBalancer=shape(simple=enum("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH")),
            connectionPool=shape(
                tcp=shape(maxConnections=NUMBER, connectTimeout=DURATION),
                http=shape(http1MaxPendingRequests=NUMBER, http2MaxRequests=NUMBER, h2UpgradePolicy=enum("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")))),
    ),
}

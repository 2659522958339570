"""Stands in for the AWS provider: Terraform's plugin protocol 5, spoken from aws-schema.json.

It checks nothing itself: Terraform compares arguments, blocks and references with the schema. What the cloud would
make up (ids, ARNs) becomes a fixed text, so that `terraform apply` runs to its end and outputs can be looked at.

    python provider.py    # prints what TF_REATTACH_PROVIDERS wants, serves until standard input closes
"""
import json
import os
import pathlib
import sys
import tempfile
from concurrent import futures

import grpc
import msgpack

SCHEMA = json.loads(pathlib.Path(__file__).with_name("aws-schema.json").read_text())
UNKNOWN = msgpack.ExtType(0, b"\0")
NESTING = {"struct": 1, "list": 2, "set": 3}
READ = {
    "aws_region": {"region": "eu-central-1", "name": "eu-central-1", "id": "eu-central-1"},
    "aws_partition": {"partition": "aws", "id": "aws", "dns_suffix": "amazonaws.com"},
}


# Protocol Buffers, as far as these messages need them: numbers and things with a length.
def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, (bool, int)):
        return varint(number << 3) + varint(int(value)) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """The fields with a length, by number; numbers are skipped, nothing here needs them."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        length = number()
        if tag & 7 == 2:
            found[tag >> 3] = message[at : at + length]
            at += length
    return found


def block(description):
    out = b""
    for name, attribute in description["attributes"].items():
        inner = field(1, name) + field(2, json.dumps(attribute["type"]))
        inner += field(4, attribute["required"]) + field(5, attribute["optional"]) + field(6, attribute["computed"])
        out += field(2, inner)
    for name, nested in description["blocks"].items():
        inner = field(1, name) + field(2, block(nested)) + field(3, NESTING[nested["nesting"]])
        out += field(3, inner + field(4, 1 if nested["required"] else 0))
    return out


def schema(description):
    return field(2, block(description))


def get_schema(_request):
    # Tests set a region and nothing else; where the real provider takes more, that is the operator's affair.
    region = {"type": "string", "required": False, "optional": True, "computed": False}
    out = field(1, schema({"attributes": {"region": region}, "blocks": {}}))
    for number, kind in ((2, "resources"), (3, "data_sources")):
        for name, description in SCHEMA[kind].items():
            out += field(number, field(1, name) + field(2, schema(description)))
    return out


def dynamic(value):
    return field(1, msgpack.packb(value))


def value_of(message):
    inner = fields(message)
    return msgpack.unpackb(inner[1], strict_map_key=False) if 1 in inner else json.loads(inner[2])


def plan(request):
    """Request: type_name 1, prior_state 2, proposed_new_state 3. Answer: planned_state 1."""
    request = fields(request)
    proposed = value_of(request[3])
    if proposed is not None and value_of(request[2]) is None:
        for name, attribute in SCHEMA["resources"][request[1].decode()]["attributes"].items():
            if attribute["computed"] and proposed[name] is None:
                proposed[name] = UNKNOWN
    return field(1, dynamic(proposed))


def apply(request):
    """Request: type_name 1, prior_state 2, planned_state 3. Answer: new_state 1."""
    request = fields(request)
    kind, planned = request[1].decode(), value_of(request[3])
    if planned is not None:
        of = SCHEMA["resources"][kind]["attributes"]
        label = planned.get("name") or planned.get("name_prefix") or planned.get("description") or "one"
        label = "one" if isinstance(label, msgpack.ExtType) else label
        for name, value in planned.items():
            if isinstance(value, msgpack.ExtType):
                planned[name] = f"{kind}:{label}:{name}" if of[name]["type"] == "string" else None
    return field(1, dynamic(planned))


def read_data(request):
    """Request: type_name 1, config 2. Answer: state 1."""
    request = fields(request)
    return field(1, dynamic(value_of(request[2]) | READ[request[1].decode()]))


ANSWERS = {
    "GetSchema": get_schema,
    "PrepareProviderConfig": lambda request: field(1, fields(request)[1]),
    "ValidateResourceTypeConfig": lambda _: b"",
    "ValidateDataSourceConfig": lambda _: b"",
    "Configure": lambda _: b"",
    "Stop": lambda _: b"",
    "UpgradeResourceState": lambda request: field(1, dynamic(json.loads(fields(fields(request)[3])[1]))),
    "ReadResource": lambda request: field(1, fields(request)[2]),
    "PlanResourceChange": plan,
    "ApplyResourceChange": apply,
    "ReadDataSource": read_data,
}


class Provider(grpc.GenericRpcHandler):
    def service(self, call):
        answer = ANSWERS.get(call.method.removeprefix("/tfplugin5.Provider/"))
        if answer is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: answer(request))


def main():
    with tempfile.TemporaryDirectory() as folder:
        socket = os.path.join(folder, "aws")
        server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Provider()])
        server.add_insecure_port(f"unix://{socket}")
        server.start()
        address = {"Network": "unix", "String": socket}
        attach = {"Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True, "Addr": address}
        print(json.dumps({"registry.terraform.io/hashicorp/aws": attach}), flush=True)
        sys.stdin.read()
        server.stop(1).wait()


if __name__ == "__main__":
    main()

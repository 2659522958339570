#!/usr/bin/env python3
"""Writes aws-schema.json: what the AWS provider knows of the resources and data sources named below.

The provider itself is not in any package registry, but its schema is: the generated classes of the npm package
@cdktf/provider-aws tell of every argument its name, type, nesting, and whether it is required. The package is 37 MB,
so what is used is committed. Run this (it needs npm) after a resource was added to terraform/, or for a newer provider:

    tests/ship/terraform/engine/generate_schema.py
"""
import base64
import json
import pathlib
import re
import subprocess
import tarfile
import tempfile

PACKAGE = "@cdktf/provider-aws@21.22.1"
RESOURCES = [
    "aws_cloudfront_cache_policy",
    "aws_cloudfront_key_group",
    "aws_cloudfront_public_key",
    "aws_security_group",
    "aws_vpc_security_group_ingress_rule",
]
DATA_SOURCES = ["aws_partition", "aws_region"]
TYPES = {
    "string": "string",
    "number": "number",
    "boolean": "bool",
    "stringList": ["list", "string"],
    "stringMap": ["map", "string"],
}
GETTERS = {"String": "string", "Number": "number", "Boolean": "bool", "StringMap": ["map", "string"], "List": ["list", "string"]}


def typescript(package, folder):
    """The TypeScript that a class was compiled from; it stands in the source map."""
    javascript = package.extractfile(f"package/lib/{folder}/index.js").read().decode()
    encoded = javascript.rsplit("sourceMappingURL=data:application/json;base64,", 1)[1]
    return json.loads(base64.b64decode(encoded))["sourcesContent"][0]


def body(source, opening):
    """The text between the braces that open at the end of `opening`."""
    start = source.index(opening) + len(opening)
    depth, at = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(source[at], 0)
        at += 1
    return source[start : at - 1]


def flags(text):
    """What the comments above the getters say: name -> (computed, optional, required)."""
    found = re.findall(r"// (\w+) - computed: (\w+), optional: (\w+), required: (\w+)", text)
    return {name: tuple(word == "true" for word in words) for name, *words in found}


def block(source, members, attributes):
    """One block of the schema from the class that reads it and the object that writes it."""
    result = {"attributes": {}, "blocks": {}}
    known = flags(members)
    written = re.findall(
        r"(\w+): \{\s*value: .*?,\s*isBlock: (\w+),\s*type: \"(\w+)\",\s*storageClassType: \"(\w+)\",", attributes, re.S
    )
    for name, is_block, kind, storage in written:
        computed, optional, required = known[name]
        inner = storage.removesuffix("List")
        struct = inner[0].lower() + inner[1:]
        if is_block == "true" and name != "timeouts" and not computed:
            nested = block(
                source,
                body(source, f"export class {inner}OutputReference extends cdktf.ComplexObject {{"),
                body(source, re.search(rf"export function {struct}ToHclTerraform\([^{{]*\{{", source).group(0)),
            )
            result["blocks"][name] = {"nesting": kind, "required": required, **nested}
        elif name != "timeouts":
            # egress and ingress of a security group are attributes that look like blocks; nobody here sets them.
            of = TYPES.get(storage, "dynamic")
            of = ["set", "string"] if kind == "set" and of == ["list", "string"] else of
            result["attributes"][name] = {"type": of, "required": required, "optional": optional, "computed": computed}
    for name, (computed, optional, required) in known.items():
        if name not in result["attributes"] and name not in result["blocks"] and name != "timeouts":
            getter = re.search(rf"get(\w+?)Attribute\('{name}'\)", members)
            of = GETTERS.get(getter.group(1), "dynamic") if getter else "dynamic"
            of = ["map", "string"] if f'cdktf.StringMap(this, "{name}")' in members else of
            result["attributes"][name] = {"type": of, "required": required, "optional": optional, "computed": computed}
    result["attributes"] = dict(sorted(result["attributes"].items()))
    return result


def read(package, folder):
    source = typescript(package, folder)
    version = re.search(r"providerVersion: '([\d.]+)'", source).group(1)
    opening = re.search(r"export class \w+ extends cdktf\.Terraform(Resource|DataSource) \{", source).group(0)
    members = body(source, opening)
    attributes = body(members, "protected synthesizeHclAttributes(): { [name: string]: any } {")
    return version, block(source, members, attributes)


def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, timeout=300, stdout=subprocess.DEVNULL)
        with tarfile.open(next(pathlib.Path(folder).glob("*.tgz"))) as package:
            schema = {"package": PACKAGE, "provider": None, "resources": {}, "data_sources": {}}
            for kind, prefix, names in (("resources", "", RESOURCES), ("data_sources", "data-aws-", DATA_SOURCES)):
                for name in names:
                    short = name.removeprefix("aws_").replace("_", "-")
                    schema["provider"], schema[kind][name] = read(package, prefix + short)
    out = pathlib.Path(__file__).with_name("aws-schema.json")
    out.write_text(json.dumps(schema, indent=1) + "\n")
    print(f"{out.name}: provider {schema['provider']}")


if __name__ == "__main__":
    main()

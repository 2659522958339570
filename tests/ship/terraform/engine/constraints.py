"""Terraform's type constraints, and whether a value fits one to the letter.

Terraform converts: an attribute that an object type does not have is dropped without a word. A misspelt setting of a
module would be no setting, so tests compare names themselves.
"""
import re

TOKEN = re.compile(r'\s*([a-z_0-9]+|"[^"]*"|[(){}=,\[\]])')


def parse(text):
    tokens = TOKEN.findall(text)
    of, rest = constraint(tokens)
    assert not rest, f"{text}: {rest} is left"
    return of


def constraint(tokens):
    """("object", {name: (optional, type)}), ("list" | "set" | "map", type), or ("string" | "number" | "bool" | "any",)"""
    word, *tokens = tokens
    if word in ("string", "number", "bool", "any"):
        return (word,), tokens
    assert tokens[0] == "(", f"{word} is no type"
    tokens = tokens[1:]
    if word in ("list", "set", "map"):
        of, tokens = constraint(tokens)
        return (word, of), tokens[1:]
    assert word == "object"
    names, tokens = {}, tokens[1:]
    while tokens[0] != "}":
        name, equals, *tokens = tokens
        assert equals == "="
        optional = tokens[0] == "optional"
        of, tokens = constraint(tokens[2:] if optional else tokens)
        if optional:
            while tokens[0] != ")":
                tokens = tokens[1:]
            tokens = tokens[1:]
        names[name] = (optional, of)
        if tokens[0] == ",":
            tokens = tokens[1:]
    return ("object", names), tokens[2:]


def misfits(value, of, where):
    """Sentences about what does not fit."""
    kind = of[0]
    if value is None or kind == "any":
        return
    if kind == "object":
        if not isinstance(value, dict):
            yield f"{where} is {value!r}, not an object"
            return
        for name in sorted(value.keys() - of[1].keys()):
            yield f"{where}.{name} does not exist"
        for name, (optional, inner) in of[1].items():
            if name in value:
                yield from misfits(value[name], inner, f"{where}.{name}")
            elif not optional:
                yield f"{where}.{name} is missing"
    elif kind == "map":
        for name, inner in value.items():
            yield from misfits(inner, of[1], f"{where}.{name}")
    elif kind in ("list", "set"):
        for at, inner in enumerate(value):
            yield from misfits(inner, of[1], f"{where}[{at}]")
    elif not isinstance(value, {"string": (str, int, float, bool), "number": (int, float), "bool": bool}[kind]):
        yield f"{where} is {value!r}, not a {kind}"

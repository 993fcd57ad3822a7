"""The Arrow schemas, field by field: every public function of duodaq.schema that returns one."""

from __future__ import annotations

import inspect
from typing import Any

import pyarrow as pa
from markup import code, paragraphs, table

import duodaq.schema
from duodaq.schema import schema_name

EXAMPLE: dict[str, Any] = {"shape": (512, 512), "dtype": "uint16"}
"""For schemas that depend on them: the pixels of a camera."""


def tables(words: list[str], like: list[list[str]]) -> str:
    made = [getattr(duodaq.schema, name) for name in duodaq.schema.__all__]
    makers = [
        one
        for one in made
        if inspect.isfunction(one) and _returned(one) == "pa.Schema" and one.__name__ != "with_origin"
    ]
    makers.sort(key=lambda one: (one.__module__, inspect.getsourcelines(one)[1]))
    return "\n\n".join(map(_section, makers))


def _returned(maker: Any) -> str:
    return str(inspect.signature(maker).return_annotation)


def _section(maker: Any) -> str:
    given = {name: EXAMPLE[name] for name in inspect.signature(maker).parameters if name in EXAMPLE}
    schema: pa.Schema = maker(**given)
    words = paragraphs((inspect.getdoc(maker) or "").partition("\n\nArgs:")[0])
    rows = [(code(field.name), _type(field.type), "yes" if field.nullable else "no") for field in schema]
    return f"## `{schema_name(schema)}`\n\n{words}\n\n{table(('field', 'type', 'null'), rows)}".strip()


def _type(kind: Any) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        shape = " × ".join(map(str, kind.shape))
        return f"{code(f'fixed_shape_tensor[{kind.value_type}]')} of the frame's shape, here {shape}"
    if pa.types.is_dictionary(kind):
        return f"{code(kind.value_type)}, dictionary-encoded"
    return code(kind)

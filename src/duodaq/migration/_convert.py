"""A lab file with stanzas turned from V2 to V4, and back: text in, text out.

The rules that whoever edits this must keep:

* Not one byte changes outside the stanzas that are turned.
* A stanza's old lines stay beneath it, as comments that begin with ``#v2``, so that turning it back is exact.
* Comments stay where they stood; what is written into a stanza goes behind what was there.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from duodaq.config import Positions
from duodaq.errors import ConfigError
from duodaq.migration._equivalents import Equivalents, equivalents_of
from duodaq.migration._stanza import to_v4

KEPT = "#v2 "
HEADLINE = "# as it was in V2, for `duodaq migrate convert --back`:"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_HEADER = re.compile(r"\s*\[")


@dataclass
class Conversion:
    """What became of a lab file.

    Attributes:
        text: The file as it is now to be.
        converted: The instruments that were turned.
        left: Those that were not, and why.
        unsaid: What of a turned one could not be said in V4, by instrument.
        needless: What of it needs not be said there.
    """

    before: str
    text: str
    converted: list[str] = field(default_factory=list[str])
    left: dict[str, str] = field(default_factory=dict[str, str])
    unsaid: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    needless: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def diff(self, name: str = "lab.toml") -> str:
        """What changed, as a unified diff; empty if nothing did."""
        lines = (self.before.splitlines(keepends=True), self.text.splitlines(keepends=True))
        return "".join(difflib.unified_diff(*lines, f"{name} (before)", f"{name} (after)"))


def convert_lab(
    text: str,
    only: set[str] | None = None,
    drivers: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Conversion:
    """Turn V2 stanzas into V4 ones where there is a V4 driver.

    Args:
        text: The lab file; it must be valid TOML.
        only: The instruments to turn; all that are in V2 by default.
        drivers: The V4 driver of an instrument, where another one is wanted than duodaq would choose.
        directory: Of the lab file: where a driver's file is looked for, to read what it has.
    """
    values: dict[str, Any] = tomllib.loads(text)
    done = Conversion(text, text)
    stanzas: dict[str, Any] = values.get("instruments", {})
    _check_known(only, stanzas)
    for id, stanza in stanzas.items():
        if (only is None or id in only) and stanza.get("runtime") == "v2":
            codec = values.get("ports", {}).get(stanza.get("port", ""), {}).get("codec")
            same = equivalents_of(str(stanza.get("driver", "")), codec, (drivers or {}).get(id), directory)
            _turn(done, id, stanza, codec, same)
        elif only is not None and id in only:
            done.left[id] = f"it is in {stanza.get('runtime')} already"
    return done


def convert_back(text: str, only: set[str] | None = None) -> Conversion:
    """Turn stanzas back that `convert_lab` has turned: exactly as they were."""
    done = Conversion(text, text)
    stanzas: dict[str, Any] = tomllib.loads(text).get("instruments", {})
    _check_known(only, stanzas)
    for id, stanza in stanzas.items():
        if stanza.get("runtime") != "v4" or (only is not None and id not in only):
            continue
        lines = _lines(done.text)
        region = _region(done.text, id)
        if region is None or not any(map(_is_kept, lines[region.start : region.stop])):
            if only is not None:
                done.left[id] = "its stanza does not say how it was in V2"
            continue
        lines[region.start : region.stop] = _as_it_was(lines[region.start : region.stop])
        done.text = "".join(lines)
        done.converted.append(id)
    return done


def _check_known(only: set[str] | None, stanzas: Mapping[str, Any]) -> None:
    unknown = sorted((only or set()) - stanzas.keys())
    if unknown:
        known = ", ".join(stanzas) or "none"
        raise ConfigError(f"there is no instrument {unknown[0]!r}", remedy=f"Instruments here: {known}")


def _turn(done: Conversion, id: str, stanza: dict[str, Any], codec: str | None, same: Equivalents | None) -> None:
    if "port" not in stanza:
        done.left[id] = "it opens its device itself; give it a port that both runtimes share"
        return
    if same is None:
        said = f'the codec "{codec}"' if codec else "no codec"
        done.left[id] = f"V4 has no driver for it (port {stanza['port']} has {said}); name one with --driver"
        return
    region = _region(done.text, id)
    if region is None:
        done.left[id] = f"its stanza is not one piece; write it under [instruments.{id}], its tables behind each other"
        return
    made = to_v4(stanza, same)
    lines = _lines(done.text)
    lines[region.start : region.stop] = _turned(lines[region.start : region.stop], id, made.stanza)
    done.text = "".join(lines)
    done.converted.append(id)
    done.unsaid[id], done.needless[id] = made.unsaid, made.needless


def _region(text: str, id: str) -> range | None:
    """The lines of an instrument's tables, which stand behind each other; what stands above the next is not of it."""
    lines = _lines(text)
    headers: dict[int, bool] = {}
    for path, line in Positions(text).first.items():
        if _HEADER.match(lines[line - 1]):
            headers[line - 1] = headers.get(line - 1, False) or path[:2] == ("instruments", id)
    order = sorted(headers)
    own = [place for place, line in enumerate(order) if headers[line]]
    if not own or own[-1] - own[0] != len(own) - 1 or not _names(lines[order[own[0]]], id):
        return None
    start = order[own[0]]
    stop = order[own[-1] + 1] if own[-1] + 1 < len(order) else len(lines)
    while stop - 1 > start and _is_above_the_next(lines[stop - 1]):
        stop -= 1
    return range(start, stop)


def _lines(text: str) -> list[str]:
    """The lines as TOML has them: only a line feed ends one."""
    return _LINE.findall(text)


def _names(header: str, id: str) -> bool:
    """Whether a line is the header of the instrument itself, not of a table in it."""
    try:
        return bool(tomllib.loads(header).get("instruments", {}).get(id) == {})
    except tomllib.TOMLDecodeError:
        return False


def _is_above_the_next(line: str) -> bool:
    """Whether a line at the end of a table may be the head of the next one: blank, or a comment that is not ours."""
    bare = line.strip()
    return not bare or (bare.startswith("#") and not _is_kept(line) and bare != HEADLINE)


def _is_kept(line: str) -> bool:
    return line.startswith(KEPT.rstrip())


def _turned(old: list[str], id: str, stanza: dict[str, Any]) -> list[str]:
    """The lines of a stanza in V4, and those of V2 beneath as comments."""
    kept = [f"{KEPT}{line}" if line.strip("\r\n") else f"{KEPT.rstrip()}{line}" for line in old]
    if not old[-1].endswith("\n"):
        kept[-1] += "\n"
        kept.append(f"{KEPT}\\\n")  # the file ended without an end of line
    return [*_lines(_edited("".join(old), id, stanza)), f"{HEADLINE}\n", *kept]


def _edited(text: str, id: str, stanza: dict[str, Any]) -> str:
    """The text of a stanza with other keys; its comments stay, also where tomlkit does not know its way."""
    for attempt in (_edit, _rewrite):
        try:
            written = attempt(text, id, stanza)
            if tomllib.loads(written)["instruments"][id] == stanza:
                return written if written.endswith("\n") else f"{written}\n"
        except (tomllib.TOMLDecodeError, TOMLKitError, ValueError, KeyError):
            continue
    raise ConfigError("its stanza in V4 cannot be written", key=f"instruments.{id}")


def _edit(text: str, id: str, stanza: dict[str, Any]) -> str:
    document = tomlkit.parse(text)
    table = cast("Any", document)["instruments"][id]
    for key in [*table]:
        if key not in stanza or isinstance(stanza[key], dict):
            table.remove(key)
    for key, value in stanza.items():
        if not isinstance(value, dict):
            if key not in table or table[key] != value:
                table[key] = value
            continue
        for name, part in _parts(key, cast("dict[str, Any]", value)):
            table.append(tomlkit.key([key, name]) if name else key, _inline(part))
    return tomlkit.dumps(document)


def _rewrite(text: str, id: str, stanza: dict[str, Any]) -> str:
    comments = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    table = cast("Any", tomlkit.table())
    for key, value in stanza.items():
        table[key] = _inline(value)
    document = cast("Any", tomlkit.document())
    document["instruments"] = tomlkit.table(is_super_table=True)
    document["instruments"][id] = table
    header, rest = tomlkit.dumps(document).split("\n", 1)
    return "\n".join([header, *comments, rest])


def _parts(key: str, value: dict[str, Any]) -> list[tuple[str, Any]]:
    """Polls and axes have a line each; other tables are one line."""
    return [*value.items()] if key in ("poll", "axes") else [("", value)]


def _inline(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = cast("Any", tomlkit.inline_table())
    table.update(cast("dict[str, Any]", value))
    return table


def _as_it_was(lines: list[str]) -> list[str]:
    """The kept lines, restored: those beneath the last headline, for what looks like one above it is somebody's own."""
    heads = [n for n, line in enumerate(lines) if line.strip() == HEADLINE]
    kept = [line for line in lines[heads[-1] if heads else 0 :] if _is_kept(line)]
    restored = [line.removeprefix(KEPT) if line.startswith(KEPT) else line.removeprefix(KEPT.rstrip()) for line in kept]
    if restored[-1] == "\\\n":
        restored = [*restored[:-2], restored[-2].removesuffix("\n")]
    return restored

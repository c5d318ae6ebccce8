"""Redaction as a slow, obvious reference: `re` and loops, one value after the other, over the official messages.

Knows addresses, card numbers and IBANs, masks them, and obeys rules by attribute name. Written from the rules the
detectors document, not from the kernel: it looks everywhere, where the kernel looks only where its searches lead it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from telflow.governance.numbering import CARD_ISSUERS, IBAN_ACCOUNTS, NOT_DOMAINS

__all__ = ["find", "redact_message", "replace"]

Found = tuple[int, int, str]
_LABELS = {"email": "[EMAIL]", "payment_card": "[CARD]", "iban": "[IBAN]"}
_AT = re.compile(r"@|%40|\\u0040|&#64;|&#x40;|\\x40")
_HEX = "0123456789abcdefABCDEF"
_GROUPINGS = [(4, 6, 5), (4, 6, 4), (4, 5, 6), (6, 13)]
_ISSUERS = [
    (re.compile(rf"[0-9]{{{len(first)}}}"), int(first), int(last), len(first), lengths)
    for first, last, lengths in CARD_ISSUERS
]
_ESCAPE = re.compile(r"(?:%[0-9A-Fa-f]{2}|\\[bfnrt])\Z")


@functools.lru_cache(maxsize=4096)
def _find(text: str, wide: bool) -> tuple[Found, ...]:
    found = [*_emails(text, wide=wide), *_cards(text), *_ibans(text)]
    return tuple(sorted(found, key=lambda f: (f[0], -f[1], list(_LABELS).index(f[2]))))


def find(text: str, *, wide: bool = True) -> list[Found]:
    """Everything found, by position; the longer of two that start together first. Offsets in characters."""
    return list(_find(text, wide))


def replace(text: str, *, wide: bool = True) -> str:
    """The text with every finding masked; overlapping ones become one, named after the first."""
    out, copied = "", 0
    found = find(text, wide=wide)
    while found:
        start, end, name = found.pop(0)
        while found and found[0][0] < end:
            end = max(end, found.pop(0)[1])
        out += text[copied:start] + _LABELS[name]
        copied = end
    return out + text[copied:]


# Addresses


def _emails(text: str, *, wide: bool) -> Iterator[Found]:
    letters = "\x80-\U0010ffff" if wide else ""
    # Read backwards from the at sign; an escape counts only when it stands for a character of a name.
    name = re.compile(
        rf"(?:(?:[BbDdEe]2|[Ff]5)%|(?![0-9A-Fa-f]{{2}}%)(?:[A-Za-z0-9._%+{letters}-]|(?<!\A)(?<=.)'(?=[A-Za-z0-9])))+",
        re.DOTALL,
    )
    host = re.compile(rf"[A-Za-z0-9_{letters}-]+(?:\.[A-Za-z0-9_{letters}-]+)*")
    for at in _AT.finditer(text):
        before = name.match(text[: at.start()][::-1])
        behind = host.match(text, at.end())
        if not before or not behind:
            continue
        start = at.start() - before.end()
        start += len(before[0]) - len(before[0][::-1].lstrip(".'-"))
        end = _domain_end(behind)
        if start < at.start() and end:
            yield start, end, "email"


def _domain_end(behind: re.Match[str]) -> int | None:
    labels = [(m.start() + behind.start(), m[0]) for m in re.finditer(r"[^.]+", behind[0])]
    if labels[0][1].startswith("-"):
        return None
    if len(labels) > 2 and all(re.fullmatch("[0-9]+", label) for _, label in labels[:2]):
        return None
    for start, label in labels[:0:-1]:
        if label.lower() in NOT_DOMAINS and label.isascii():
            continue
        if len(label) > 4 and label[:4].lower() == "xn--":
            return start + len(label)
        top = re.match(r"[A-Za-z\x80-\U0010ffff]+", label)
        # two bytes: one letter beyond ASCII has them
        if top and len(top[0].encode(errors="surrogatepass")) >= 2:
            return start + top.end()
    return None


# Cards


def _cards(text: str) -> Iterator[Found]:
    at = 0
    while at < len(text):
        group = re.compile("[0-9]+").match(text, at)
        if not group:
            at += 1
            continue
        end = _card_end(text, at)
        if end:
            yield at, end, "payment_card"
            at = end
        elif text[:at].endswith("%") and re.match("[0-9]{2}", text[at:]):
            at += 2
        elif at > 1 and text[at - 2] == "%" and text[at - 1] in _HEX:
            at += 1
        else:
            at = group.end()


def _card_end(text: str, start: int) -> int | None:
    ends = []
    for count in range(6):
        found = re.compile(rf"[0-9]+(?:[ -][0-9]+){{{count}}}(?![0-9])").match(text, start)
        if found:
            groups = re.split("[ -]", found[0])
            digits = "".join(groups)
            if _is_card_shape(groups, digits) and _is_card(digits) and _stands_apart(text, start, found.end()):
                ends.append(found.end())
    return max(ends, default=None)


def _is_card_shape(groups: list[str], digits: str) -> bool:
    sizes = tuple(map(len, groups))
    fours = all(size == 4 for size in sizes[:-1]) and sizes[-1] <= 4
    return len(sizes) == 1 or (len(digits) > 12 and (fours or sizes in _GROUPINGS))


def _is_card(digits: str) -> bool:
    doubled = [sum(divmod(2 * int(d), 10)) if i % 2 else int(d) for i, d in enumerate(reversed(digits))]
    issued = any(
        low <= int(digits[:width]) <= high and len(digits) in lengths
        for _, low, high, width, lengths in _ISSUERS
        if len(digits) >= 12
    )
    return issued and sum(doubled) % 10 == 0


def _stands_apart(text: str, start: int, end: int) -> bool:
    if re.search(r"[0-9]\.\Z", text[:start]):
        return False
    left = ""
    while (char := text[start - len(left) - 1 : start - len(left)]) and char.isascii() and char.isalnum():
        if _ESCAPE.search(text[: start - len(left)]) or len(left) == 64:
            break
        left = char + left
    right = re.compile("[0-9A-Za-z]{0,64}").match(text, end)
    around = left + (right[0] if right else "")
    if not re.search("[A-Za-z]", around):
        return True
    return not re.search("0[xX]\\Z", left) and bool(re.search("[G-Zg-z]", around))


# IBANs


def _iban_patterns() -> Iterator[re.Pattern[str]]:
    for country, structure in IBAN_ACCOUNTS:
        kinds = "aann" + "".join(kind * int(n) for kind, n in re.findall("([acn])([0-9]+)", structure))
        for letter, separators in (("A-Z", ["", "[ ]", "[-]"]), ("a-z", [""])):
            classes = [{"a": f"[{letter}]", "n": "[0-9]", "c": f"[0-9{letter}]"}[kind] for kind in kinds]
            name = country if letter == "A-Z" else country.lower()
            for separator in separators:
                body = "".join((separator if i and i % 4 == 0 else "") + c for i, c in enumerate(classes))
                yield re.compile(rf"(?={name}){body}(?![0-9A-Za-z])")


_IBANS = list(_iban_patterns())


def _ibans(text: str) -> Iterator[Found]:
    if len(text) < 15 or not re.search("[A-Za-z]{2}[0-9]{2}", text):
        return
    for pattern in _IBANS:
        for found in pattern.finditer(text):
            apart = not re.search(r"[0-9A-Za-z]\Z", text[: found.start()])
            if (apart or _ESCAPE.search(text[: found.start()])) and _mod_97(found[0]):
                yield found.start(), found.end(), "iban"


def _mod_97(iban: str) -> bool:
    compact = re.sub("[ -]", "", iban).upper()
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


# Messages


def redact_message(message: Any, keys: Mapping[str, str]) -> None:
    """Mask everything found anywhere in an official message, in place.

    Args:
        message: A request or any part of one.
        keys: Attribute name -> `mask`, `delete` or `keep`.
    """
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.name == "KeyValue":
            _attributes(value, keys, "")
        elif field.message_type is not None and field.message_type.name == "AnyValue":
            if message.HasField(field.name):
                _any_value(value, keys, "")
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value] * message.HasField(field.name):
                redact_message(part, keys)
        else:
            _scalar(message, field)


def _scalar(message: Any, field: Any) -> None:
    value = getattr(message, field.name)
    if field.type == field.TYPE_STRING and field.is_repeated:
        value[:] = [replace(text) for text in value]
    elif field.type == field.TYPE_STRING:
        setattr(message, field.name, replace(value))
    elif field.type == field.TYPE_BYTES and _is_found_id(value, message.DESCRIPTOR.name, field.name):
        setattr(message, field.name, b"")


def _is_found_id(value: bytes, owner: str, name: str) -> bool:
    regular = {"trace_id": 16}.get(name, 8)
    widths = {8, 16} if owner in ("Link", "Exemplar") else {regular}
    if len(value) in widths and not all(0x20 <= b < 0x7F for b in value):
        return False
    return _bytes(value) != value


def _bytes(value: bytes) -> bytes:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return replace(value.decode("latin-1"), wide=False).encode("latin-1")
    return replace(text).encode()


def _attributes(found: Any, keys: Mapping[str, str], parent: str) -> None:
    kept = []
    for kv in found:
        path = f"{parent}.{kv.key}" if parent else kv.key
        rule = next((action for key, action in keys.items() if key.lower() in (kv.key.lower(), path.lower())), None)
        if rule == "delete":
            continue
        if rule == "mask" and kv.HasField("value") and kv.value.WhichOneof("value"):
            kv.value.string_value = "[REDACTED]"
        elif rule is None and kv.HasField("value"):
            _any_value(kv.value, keys, path)
        kv.key = replace(kv.key)
        kept.append(type(kv)())
        kept[-1].CopyFrom(kv)
    del found[:]
    found.extend(kept)


def _any_value(value: Any, keys: Mapping[str, str], path: str) -> None:
    match value.WhichOneof("value"):
        case "string_value":
            value.string_value = replace(value.string_value)
        case "bytes_value":
            value.bytes_value = _bytes(value.bytes_value)
        case "int_value" if _is_card(str(abs(value.int_value))):
            value.string_value = "[CARD]"
        case "double_value" if value.double_value % 1 == 0 and _is_card(str(abs(int(value.double_value)))):
            value.string_value = "[CARD]"
        case "array_value":
            for item in value.array_value.values:
                _any_value(item, keys, path)
        case "kvlist_value":
            _attributes(value.kvlist_value.values, keys, path)

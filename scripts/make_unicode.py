#!/usr/bin/env python3
"""Writes src/io/unicode_tables.c and src/io/unicode_decomposition.c: what the CLIP tokenizer needs to know of Unicode.

    make_unicode.py SRC_IO        (needs the Python package `tokenizers`, 0.23; Python 3.11 for Unicode 14)

The tokenizer must agree with Hugging Face's, whose parts know different versions of Unicode: its regular expressions
(classes of characters), Rust's lower case, and an older normaliser. So classes and lower case are read off that library
code point by code point, and Python's unicodedata (checked against it) gives decompositions and combining classes.
"""
import argparse, pathlib, unicodedata
from tokenizers import Regex, normalizers

a = argparse.ArgumentParser()
a.add_argument("folder", type=pathlib.Path)
folder = a.parse_args().folder
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HEADER = "// Made by scripts/make_unicode.py; not to be edited.\n// clang-format off\n#include \"io/unicode_tables.h\"\n"


def members(regex):
    replace = normalizers.Replace(Regex(regex), "\x01")
    found = []
    for i in range(0, len(POINTS), 4096):
        chunk = POINTS[i : i + 4096]
        text = replace.normalize_str("".join(map(chr, chunk)))
        found += [c for c, r in zip(chunk, text, strict=True) if r == "\x01" and c != 1]
    return found


def runs(points, key=lambda c: 0):
    """[first, last, key] of consecutive points with equal key."""
    found = []
    for c in points:
        if found and c == found[-1][1] + 1 and key(c) == found[-1][2]:
            found[-1][1] = c
        else:
            found.append([c, c, key(c)])
    return found


def table(declaration, rows):
    lines, line = [], "   "
    for row in rows:
        cell = f" {row},"
        if isinstance(row, tuple):
            cell = " {" + ", ".join(f"{v:#x}" if v > 9 else str(v) for v in row) + "},"
        if len(line) + len(cell) > 120:
            lines.append(line)
            line = "   "
        line += cell
    name = declaration.split()[-1].split("[")[0]
    count = f"const size_t {name}_count = {len(rows)};\n"
    return f"\nconst {declaration} = {{\n" + "\n".join(lines + [line]) + "\n};\n" + count


lower = normalizers.Lowercase()
mapped = {c: lower.normalize_str(chr(c)) for c in POINTS}
mapped = {c: m for c, m in mapped.items() if m != chr(c)}
assert [c for c, m in mapped.items() if len(m) > 1] == [0x130] and mapped.pop(0x130) == "i\u0307"
# Runs of the same distance with a step of 1 (A-Z) or 2 (where capital and small letters alternate).
lowered = []
for c, m in sorted(mapped.items()):
    distance = ord(m) - c
    last = lowered[-1] if lowered else None
    if last and last[3] == distance and (c - last[1] == last[2] or (last[0] == last[1] and c - last[1] in (1, 2))):
        last[2] = c - last[1]
        last[1] = c
    else:
        lowered.append([c, c, 1, distance])

nfc = normalizers.NFC()
# A mark that the normaliser does not know (one newer than its tables) does not move before another.
moves = lambda text: nfc.normalize_str(text) != text
known = lambda c: moves(f"q{chr(c)}\u0334") or moves(f"q\u0345{chr(c)}")
marks = [c for c in POINTS if unicodedata.combining(chr(c)) and known(c)]

decomposed, composed = [], []
for c in POINTS:
    d = unicodedata.decomposition(chr(c))
    if not d or d.startswith("<"):
        continue
    parts = [int(p, 16) for p in d.split()]
    full = unicodedata.normalize("NFD", chr(c))
    back = nfc.normalize_str(full)
    if back != chr(c) and unicodedata.normalize("NFC", full) == chr(c):
        continue  # newer than the normaliser's tables
    if back == chr(c):
        composed.append((tuple(parts), len(decomposed)))
    decomposed.append((c, *parts, *[0] * (2 - len(parts))))

text = HEADER + table("pb_unicode_range pb_unicode_letters[]", [tuple(r[:2]) for r in runs(members(r"\p{L}"))])
text += table("pb_unicode_range pb_unicode_numbers[]", [tuple(r[:2]) for r in runs(members(r"\p{N}"))])
text += table("pb_unicode_range pb_unicode_spaces[]", [tuple(r[:2]) for r in runs(members(r"\s"))])
text += table("pb_unicode_lowering pb_unicode_lowered[]", [tuple(r) for r in lowered])
marked = runs(marks, lambda c: unicodedata.combining(chr(c)))
text += table("pb_unicode_mark_range pb_unicode_marks[]", [tuple(r) for r in marked])
(folder / "unicode_tables.c").write_text(text)
text = HEADER + table("pb_unicode_decomposition pb_unicode_decomposed[]", decomposed)
text += table("uint16_t pb_unicode_composed[]", [i for _, i in sorted(composed)])
(folder / "unicode_decomposition.c").write_text(text)

#!/usr/bin/env python3
"""Turns traces of diffusers' train_dreambooth.py into tests/golden/draws.txt (see draws.h for what they hold).

    draws.py REFERENCE > draws.txt

REFERENCE has cases.json, photos/{instance,class}/ and training/CASE.jsonl: a line per forward pass with the data
indices asked for, the integers and the first four values of each normal draw. Per case:
    case NAME seed instances classes batch center offset bf16 passes
    then instances + classes lines (none with a center crop): rows and columns beyond 64x64 of the resized picture
    then per pass: indices N ...  integers N ...  normals N (images head0 head1 head2 head3) ...
"""
import argparse, json, pathlib
from PIL import Image

a = argparse.ArgumentParser()
a.add_argument("reference", type=pathlib.Path)
reference = a.parse_args().reference
TARGET = 64


def slack(path):
    w, h = Image.open(path).size
    short, long = min(w, h), max(w, h)
    long = int(TARGET * long / short)
    return (long - TARGET, 0) if h > w else (0, long - TARGET)


for case, c in json.loads((reference / "cases.json").read_text()).items():
    args = c["args"]
    value = lambda key, default: args[args.index(key) + 1] if key in args else default
    lines = [json.loads(l) for l in (reference / "training" / f"{case}.jsonl").read_text().splitlines()]
    files, passes = lines[0], lines[1:]
    classes = files["class_files"][: int(value("--num_class_images", 100))]
    center = "--center_crop" in args
    print("case", case, value("--seed", 0), len(files["files"]), len(classes), value("--train_batch_size", 4),
          int(center), int("--offset_noise" in args), int(value("--mixed_precision", "no") == "bf16"), len(passes))
    if not center:
        for folder, names in (("instance", files["files"]), ("class", classes)):
            for name in names:
                print(*slack(reference / "photos" / folder / name))
    for p in passes:
        integers = [v for group in p["integers"] for v in group]
        print("indices", len(p["indices"]), *p["indices"], end=" ")
        print("integers", len(integers), *integers, end=" ")
        heads = (f"{n['shape'][0]} " + " ".join("%.9g" % v for v in n["head"]) for n in p["normals"])
        print("normals", len(p["normals"]), *heads)

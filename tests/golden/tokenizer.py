#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/ with transformers' CLIPTokenizer (5.23, tokenizers 0.23).

    tokenizer.py FOLDER        FOLDER: of any CLIP tokenizer, whose vocabulary is cut to 900 merges

merges.txt, vocab.json; tokenizer.json (the same cut to 40 merges, as transformers saves it); configs.json: sets of
configuration files as texts; cases.jsonl: {"tokenizer", "length", "text", "ids"}, the ids as padded and truncated.
"""
import argparse, json, pathlib, random, shutil, tempfile, unicodedata
from transformers import CLIPTokenizer

a = argparse.ArgumentParser()
a.add_argument("folder", type=pathlib.Path)
source = a.parse_args().folder
out = pathlib.Path(__file__).resolve().parent / "tokenizer"
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def cut(folder, count):
    merges = (source / "merges.txt").read_text(encoding="utf-8").splitlines()[1 : count + 1]
    letters = list(json.loads((source / "vocab.json").read_text(encoding="utf-8")))[:512]
    words = letters + [m.replace(" ", "") for m in merges] + [BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = json.dumps({w: i for i, w in enumerate(words)}, ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return len(words)


def token(content, **flags):
    return dict(content=content, lstrip=False, normalized=True, rstrip=False, single_word=False) | flags


size = cut(out, 900)
typed = lambda content: token(content) | {"__type": "AddedToken"}
CONFIGS = {
    "plain": {"config": {"model_max_length": 77, "pad_token": EOS, "tokenizer_class": "CLIPTokenizer"}},
    "sd1": {  # as published: objects in both files
        "config": {"bos_token": typed(BOS), "eos_token": typed(EOS), "unk_token": typed(EOS), "pad_token": EOS,
                   "model_max_length": 77},
        "special": {"bos_token": token(BOS), "eos_token": token(EOS), "unk_token": token(EOS), "pad_token": EOS}},
    "sd2": {
        "config": {"added_tokens_decoder": {"0": token("!", normalized=False, special=True),
                                            str(size - 2): token(BOS, special=True),
                                            str(size - 1): token(EOS, special=True)},
                   "bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": "!", "model_max_length": 77},
        "special": {"pad_token": "a"}},
    "bare": {},
    "added": {
        "config": {"added_tokens_decoder": {str(size): token("<Sks>", special=False),
                                            str(size + 1): token("[Cat]", normalized=False, lstrip=True, rstrip=True,
                                                                 special=True)}, "model_max_length": 20}},
    "map": {"config": {"model_max_length": 20}, "added": {"<cat-Toy>": size, "<dog>": size + 1}},
    "extra": {"config": {"additional_special_tokens": ["<x>", "hello"], "mask_token": "<mask>", "unk_token": "a",
                         "model_max_length": 1e30}},
}
TEXTS = ["", " ", "a photo of sks dog", "A  Photo,of\tSKS\ndog!!", "it's they'll WE'RE 'S''d i'm", "42 4.2 ½ ④ Ⅷ ٣",
         "!!...?!", "<|endoftext|>x<|startoftext|>", "a <|ENDOFTEXT|> b<|endoftext|>! !c", "<<|StartOfText|>>>",
         "İSTANBUL ſ Σς ẞ", "x <SKS> <Sks> [Cat]  y [cat]\t[Cat] <cat-toy><cat-Toy> <dog> <x>helloé\0",
         "naïve cafe\u0301 e\u0323\u0301 e\u0301\u0323", "한국어 \u1112\u1161\u11ab", "\u0344\u212b\ufb03 \u0958",
         "日本語のテキスト",
         "🦊👨‍👩‍👧", "\u00a0\u1680\u2003\u3000\u0085\u200b", "a" * 70, "<mask> hello <X>",
         "\ufffd\U0010ffff\ue000"]
random.seed(1)
points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
known = [c for c in points if unicodedata.category(chr(c)) not in ("Cn", "Co")]
marks = [c for c in known if unicodedata.combining(chr(c))]
capitals = [c for c in known if chr(c).lower() != chr(c)]
pools = [points, known, marks, list(range(32, 127)), list(range(0xA0, 0x530)), capitals, [32, 9, 0x2003]]
words = ["<|endoftext|>", "<|STARTOFTEXT|>", "'s", "'LL", "don't", "  ", "photo", "[Cat]", " <sks> ", "!!", "12"]


def some():
    picks = [random.choice(words) if random.random() < 0.3 else chr(random.choice(random.choice(pools)))
             for _ in range(random.randint(1, 14))]
    return "".join(picks)


cases = open(out / "cases.jsonl", "w", encoding="utf-8")


def write(name, tokenizer, texts):
    for text in texts:
        length = random.choice((2, 12, 24, 24, 40))
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=length).input_ids
        cases.write(json.dumps({"tokenizer": name, "length": length, "text": text, "ids": ids}) + "\n")


for name, files in CONFIGS.items():
    with tempfile.TemporaryDirectory() as folder:
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(out / file, folder)
        for key, file in (("config", "tokenizer_config"), ("special", "special_tokens_map"), ("added", "added_tokens")):
            if key in files:
                pathlib.Path(folder, f"{file}.json").write_text(json.dumps(files[key]))
        write(name, CLIPTokenizer.from_pretrained(folder), TEXTS + [some() for _ in range(20)])
with tempfile.TemporaryDirectory() as folder:
    small = cut(pathlib.Path(folder), 40)
    decoder = {str(small): token("<Sks>"), str(small + 1): token("[Cat]", normalized=False, special=True)}
    pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder + "/saved")
    saved = json.loads(pathlib.Path(folder, "saved/tokenizer.json").read_text())
    (out / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    write("unified", CLIPTokenizer.from_pretrained(folder + "/saved"), TEXTS)
texts = {name: {key: json.dumps(value) for key, value in files.items()} for name, files in CONFIGS.items()}
(out / "configs.json").write_text(json.dumps(texts, indent=1) + "\n")

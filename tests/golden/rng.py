#!/usr/bin/env python3
"""Draws of every kind by PyTorch's CPU generator: rng.py > rng.txt (torch 2.15).

Lines: seed S | rand N v.. | randn N v.. | half N v.. (float16) | bf16 N v.. | last N v.. (randn_like of a tensor of N
values in channels_last order, as they lie in memory) | randint LOW HIGH v | random v | randperm N v.. | state FNV1A64.
Floats are written as the hexadecimal of their 32 bits.
"""
import random
import torch

bits = lambda t: " ".join("%x" % (v & 0xFFFFFFFF) for v in t.float().contiguous().view(torch.int32).tolist())
random.seed(0)
for seed in (0, 42, 2**32 - 1, 2**40 + 7):
    print("seed", seed)
    torch.manual_seed(seed)
    for turn in range(9):
        n = (1, 15, 16, 17, 33, 3, 40, 7, 64)[turn]
        print("randn", n, bits(torch.randn(n)))
        print("rand", turn + 1, bits(torch.rand(turn + 1)))
        for name, dtype in (("half", torch.float16), ("bf16", torch.bfloat16)):
            print(name, n, bits(torch.randn(n, dtype=dtype)))
        like = torch.empty(2, 3, 2, turn + 1).to(memory_format=torch.channels_last)
        print("last", like.numel(), bits(torch.randn_like(like).permute(0, 2, 3, 1).flatten()))
        for low, high in ((0, 1000), (-5, 2**28 - 5), (-5, 2**28 - 6), (0, 2**62)):
            print("randint", low, high, int(torch.randint(low, high, (1,))))
        print("random", int(torch.empty((), dtype=torch.int64).random_()))
        print("randperm", 2 * n, *torch.randperm(2 * n).tolist())
        digest = 0xCBF29CE484222325
        for byte in torch.get_rng_state().tolist():
            digest = (digest ^ byte) * 0x100000001B3 & (1 << 64) - 1
        print("state", digest)

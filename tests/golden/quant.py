"""What bitsandbytes makes of a few tensors: goldens for the block-wise 8-bit codec, and its two maps.

    pip install torch==2.* bitsandbytes==0.50.0 safetensors
    python tests/golden/quant.py            writes tests/golden/quant/
    python tests/golden/quant.py --map      prints quant/block8_map.def
"""
import pathlib
import sys

import numpy as np
import torch
from bitsandbytes.functional import create_dynamic_map, quantize_blockwise, dequantize_blockwise
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "quant"


def print_map():
    for signed in (True, False):
        name = "PB_BLOCK8_SIGNED" if signed else "PB_BLOCK8_UNSIGNED"
        print(f"#ifdef {name}")
        values = [float(x).hex().replace("0000000p", "p") for x in create_dynamic_map(signed=signed)]
        for i in range(0, 256, 6):
            print("    " + " ".join(f"{v}f," for v in values[i:i + 6]))
        print("#endif")


def inputs():
    g = torch.Generator().manual_seed(6)
    normal = torch.randn(256 * 13 + 77, generator=g)
    sizes = torch.exp(torch.randn(256 * 8, generator=g) * 6)  # within a block, eight decades and more
    m = normal[:256 * 8] * sizes
    grid = torch.linspace(-1.002, 1.002, 256 * 8 + 1)
    grid[::256] = 1  # absmax 1 or a little more: every index of the table
    ties = create_dynamic_map(signed=True)
    ties = torch.cat([ties, (ties[1:] + ties[:-1]) / 2, torch.ones(1)])
    unsigned_ties = create_dynamic_map(signed=False)
    unsigned_ties = torch.cat([unsigned_ties, (unsigned_ties[1:] + unsigned_ties[:-1]) / 2, torch.ones(1)])
    tiny = torch.tensor(np.arange(-300, 300, dtype=np.int32).view(np.int32)).float() * 2.0**-149
    odd = torch.randn(256 * 6, generator=g)
    odd[5] = float("nan")  # one among numbers
    odd[256:512] = float("nan")
    odd[700] = float("inf")
    odd[1000] = -float("inf")
    odd[1001] = float("nan")
    odd[1024:1280] = 0
    odd[1030] = -0.0
    odd[1280:] = 0
    odd[1400] = 2.0**-149
    mixed = torch.randn(512, generator=g) * 2.0**-126
    mixed[3] = torch.finfo(torch.float32).max
    return {"normal": normal, "m": m, "v": m * m, "grid": grid, "ties": ties, "unsigned_ties": unsigned_ties,
            "tiny": tiny, "odd": odd, "mixed": mixed, "one": torch.tensor([-3.0]),
            "matrix": torch.randn(3, 100, generator=g), "scalar": torch.tensor(0.25)}


def main():
    HERE.mkdir(exist_ok=True)
    tensors = inputs()
    save_file(tensors, HERE / "inputs.safetensors")
    for signed in (True, False):
        code = create_dynamic_map(signed=signed)
        out = {}
        for name, x in tensors.items():
            codes, state = quantize_blockwise(x, code=code, blocksize=256)
            out[f"{name}.codes"] = codes
            out[f"{name}.scales"] = state.absmax
            out[f"{name}.decoded"] = dequantize_blockwise(codes, absmax=state.absmax, code=code, blocksize=256)
        save_file(out, HERE / ("signed.safetensors" if signed else "unsigned.safetensors"))


if __name__ == "__main__":
    print_map() if "--map" in sys.argv else main()

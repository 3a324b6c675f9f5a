#!/usr/bin/env python3
"""Seconds per training step of the same UNet in PyTorch and diffusers, for bench_step's rival.

    pytorch_step.py [--dtype fp32|bf16] [--batch 1] [--size 256] [--steps 4]

bf16 is autocast with fp32 weights, as train_dreambooth.py has it. Prints one line of JSON.
"""
import argparse, json, resource, time
import torch
from diffusers import UNet2DConditionModel

a = argparse.ArgumentParser()
a.add_argument("--dtype", default="fp32")
a.add_argument("--batch", type=int, default=1)
a.add_argument("--size", type=int, default=256)
a.add_argument("--steps", type=int, default=4)
a = a.parse_args()
unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8,
                            block_out_channels=(320, 640, 1280, 1280)).train()
optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-6, fused=True)
latents, noise = (torch.randn(a.batch, 4, a.size // 8, a.size // 8) for _ in range(2))
context, t = torch.randn(a.batch, 77, 768), torch.full((a.batch,), 500)
seconds = []
for i in range(a.steps):
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
        prediction = unet(latents, t, context).sample
    loss = torch.nn.functional.mse_loss(prediction.float(), noise)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
timed = sorted(seconds[1:]) or seconds
print(json.dumps({"what": "pytorch " + torch.__version__, "dtype": a.dtype, "batch": a.batch, "size": a.size,
                  "threads": torch.get_num_threads(), "seconds": round(timed[len(timed) // 2], 3),
                  "rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}))

#!/usr/bin/env python3
"""A DreamBooth step of PyTorch and diffusers on a GPU, for tests/gpu/run: same model, batch, size and precision.

    diffusers_step.py MODEL [--batch 1] [--mode eager|flash|checkpointing] [--size 512] [--steps 8]

fp16 is what train_dreambooth.py makes of it: fp32 weights under autocast with a gradient scaler. eager: attention by
separate products; flash: PyTorch's scaled_dot_product_attention; checkpointing: that, and activations computed anew.
The inputs lie on the GPU already; frozen parts are left out, as they run once per picture in both programs. Prints one
line of JSON.
"""
import argparse, json, statistics, time
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

a = argparse.ArgumentParser()
a.add_argument("model")
a.add_argument("--batch", type=int, default=1)
a.add_argument("--mode", choices=["eager", "flash", "checkpointing"], default="flash")
a.add_argument("--size", type=int, default=512)
a.add_argument("--steps", type=int, default=8)
a = a.parse_args()

torch.manual_seed(0)
torch.backends.cudnn.benchmark = True
unet = UNet2DConditionModel.from_pretrained(a.model, subfolder="unet", torch_dtype=torch.float32)
unet.to("cuda").train()
unet.set_attn_processor(AttnProcessor() if a.mode == "eager" else AttnProcessor2_0())
if a.mode == "checkpointing":
    unet.enable_gradient_checkpointing()
optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-6, fused=True)
scaler = torch.amp.GradScaler("cuda")
side = a.size // 8
latents, noise = (torch.randn(a.batch, 4, side, side, device="cuda") for _ in range(2))
context = torch.randn(a.batch, 77, unet.config.cross_attention_dim, device="cuda", dtype=torch.float16)
timesteps = torch.randint(0, 1000, (a.batch,), device="cuda")

seconds = []
for _ in range(a.steps):
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.autocast("cuda", torch.float16):
        prediction = unet(latents, timesteps, context).sample
    loss = torch.nn.functional.mse_loss(prediction.float(), noise)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)
free, total = torch.cuda.mem_get_info()
print(json.dumps({"what": "pytorch " + torch.__version__, "gpu": torch.cuda.get_device_name(),
                  "seconds_per_step": round(statistics.median(seconds[2:]), 4),
                  "allocated_peak_mib": torch.cuda.max_memory_allocated() >> 20,
                  "reserved_peak_mib": torch.cuda.max_memory_reserved() >> 20,
                  "device_used_mib": (total - free) >> 20}))

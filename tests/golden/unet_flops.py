#!/usr/bin/env python3
"""FLOPs of diffusers' UNets for one 512x512 picture, as PyTorch's own counter sees them; the figures in
tests/plan/test_plan_figures.c. Nothing is computed: the tensors are on the meta device.

PyTorch's fallback for attention keeps the probabilities, so its backward pass has four matmuls where a fused one, which
computes them again, has five: the last column counts five.
"""
import torch
from torch.utils.flop_counter import FlopCounterMode
from diffusers import UNet2DConditionModel

MODELS = {
    "sd14": dict(cross_attention_dim=768, attention_head_dim=8),
    "sd21": dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
}
for name, options in MODELS.items():
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, block_out_channels=(320, 640, 1280, 1280), **options)
        sample, context, t = torch.randn(1, 4, 64, 64), torch.randn(1, 77, options["cross_attention_dim"]), torch.tensor([5])
    with FlopCounterMode(display=False) as forward:
        y = unet(sample, t, context).sample
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    attention = backward.get_flop_counts()["Global"][torch.ops.aten.bmm]
    print(name, sum(p.numel() for p in unet.parameters()), forward.get_total_flops(),
          backward.get_total_flops() + attention // 4)

#!/usr/bin/env python3
"""Makes tests/golden/modules: the smallest pipelines that have everything, and what PyTorch, transformers and diffusers
compute with them on the CPU in fp32: output, cotangent and the gradients of sum(output x cotangent).

    python make_modules.py OUT     (made with torch 2.15, transformers 5.23, diffusers 0.42)

Sizes are odd where the architecture allows it: latents that are no multiple of the UNet's factor, batches above one.
A group has two channels or more: where it has one, the norm cancels the bias before it, whose gradient is then noise.
"""
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

g = torch.Generator().manual_seed(20)


def stir(model):
    """Moves every parameter off its initial value, so that none is zero or one and every gradient counts."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.05)
    return model.eval()


def case(path, model, out, inputs, floats, rename=lambda n: n):
    cotangent = torch.randn(out.shape, generator=g)
    (out * cotangent).sum().backward()
    r = {n: t.detach() for n, t in inputs.items()} | {"output": out.detach(), "cotangent": cotangent}
    r |= {f"grad.input.{n}": inputs[n].grad for n in floats}
    r |= {f"grad.param.{rename(n)}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    save_file({n: t.contiguous().clone() for n, t in r.items()}, path)
    model.zero_grad(set_to_none=True)


def randn(*shape):
    return torch.randn(shape, generator=g).requires_grad_()


def unet(folder, sample, tokens, **config):
    model = stir(UNet2DConditionModel(sample_size=16, norm_num_groups=4, **config))
    model.save_pretrained(folder / "unet")
    n, width = sample[0], config["cross_attention_dim"]
    x = {"sample": randn(*sample), "timestep": torch.randint(0, 1000, (n,), generator=g),
         "encoder_hidden_states": randn(n, tokens, width)}
    floats, added = ["sample", "encoder_hidden_states"], None
    if config.get("addition_embed_type"):
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        x |= {"text_embeds": randn(n, pooled), "time_ids": torch.randint(0, 1024, (n, 6), generator=g).float()}
        floats, added = floats + ["text_embeds"], {"text_embeds": x["text_embeds"], "time_ids": x["time_ids"]}
    y = model(x["sample"], x["timestep"], x["encoder_hidden_states"], added_cond_kwargs=added).sample
    case(folder / "unet.safetensors", model, y, x, floats)


def clip(folder, prefix, **config):
    model = stir(CLIPTextModel(CLIPTextConfig(vocab_size=40, max_position_embeddings=9, bos_token_id=38,
                                              eos_token_id=39, **config)))
    model.save_pretrained(folder / "text_encoder")
    weights = folder / "text_encoder" / "model.safetensors"
    save_file({prefix + n: t for n, t in load_file(weights).items()}, weights, {"format": "pt"})
    ids = torch.randint(0, 40, (2, 7), generator=g)
    case(folder / "text_encoder.safetensors", model, model(ids)[0], {"input_ids": ids}, [], lambda n: prefix + n)


def vae(folder, **config):
    n = len(config["block_out_channels"])
    model = stir(AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
                               norm_num_groups=4, sample_size=16, **config))
    model.save_pretrained(folder / "vae")
    x = {"sample": randn(2, 3, 13, 10)}
    case(folder / "vae_encoder.safetensors", model, model.encode(x["sample"]).latent_dist.parameters, x, ["sample"])
    z = {"sample": randn(2, 4, 3, 5)}
    case(folder / "vae_decoder.safetensors", model, model.decode(z["sample"]).sample, z, ["sample"])


def main():
    torch.set_num_threads(1)
    torch.manual_seed(20)
    out = pathlib.Path(sys.argv[1])
    for name in ("sd1", "sd2", "sdxl", "distilled"):
        (out / name).mkdir(parents=True, exist_ok=True)
    # Convolutions as projections, one head count for all, three levels: 9 x 11 becomes 5 x 6 and 3 x 3.
    unet(out / "sd1", (2, 4, 9, 11), 7, block_out_channels=(8, 12, 12), layers_per_block=1, attention_head_dim=2,
         cross_attention_dim=12, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
         up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    clip(out / "sd1", "text_model.", hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
         hidden_act="quick_gelu")
    vae(out / "sd1", block_out_channels=(8, 8, 12), layers_per_block=1, latent_channels=4)
    # Linear projections, head counts by level, another depth at every level, no attention in the middle.
    unet(out / "sd2", (1, 4, 5, 8), 3, block_out_channels=(8, 12), layers_per_block=(1, 2), attention_head_dim=(2, 3),
         cross_attention_dim=8, use_linear_projection=True, mid_block_type="UNetMidBlock2D", freq_shift=1,
         flip_sin_to_cos=False, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
         up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    clip(out / "sd2", "", hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
         hidden_act="gelu")
    vae(out / "sd2", block_out_channels=(8, 12), layers_per_block=2, latent_channels=4, use_quant_conv=False,
        use_post_quant_conv=False, mid_block_add_attention=False)
    # Several transformer layers, none at the first level, the added condition.
    unet(out / "sdxl", (3, 4, 6, 4), 5, block_out_channels=(8, 12), layers_per_block=1, attention_head_dim=(2, 3),
         cross_attention_dim=8, use_linear_projection=True, transformer_layers_per_block=(1, 2),
         down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
         addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=34)
    # Without a middle, as in distilled models (BK-SDM-Tiny and its kin).
    unet(out / "distilled", (2, 4, 6, 5), 4, block_out_channels=(8, 12), layers_per_block=1, attention_head_dim=2,
         cross_attention_dim=8, mid_block_type=None, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
         up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))


main()

// The config.json files of published pipelines, with what the readers need and what diffusers wants to see. Sources:
// CompVis/stable-diffusion-v1-4, stabilityai/stable-diffusion-2-1, stabilityai/stable-diffusion-xl-base-1.0.
#include "nn/preset.h"

#include <stddef.h>
#include <string.h>

typedef struct preset {
    const char *name, *part, *json;
} preset;

// clang-format off
#define UNET_HEAD "{\n  \"_class_name\": \"UNet2DConditionModel\",\n  \"act_fn\": \"silu\",\n"
#define UNET_TAIL                                                                                                      \
    "  \"center_input_sample\": false,\n  \"downsample_padding\": 1,\n  \"flip_sin_to_cos\": true,\n"                  \
    "  \"freq_shift\": 0,\n  \"in_channels\": 4,\n  \"layers_per_block\": 2,\n  \"mid_block_scale_factor\": 1,\n"      \
    "  \"norm_eps\": 1e-05,\n  \"out_channels\": 4\n}\n"
#define UNET_THREE_DOWN                                                                                                \
    "  \"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", "          \
    "\"DownBlock2D\"],\n"                                                                                              \
    "  \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"],\n"

#define VAE_HEAD                                                                                                       \
    "{\n  \"_class_name\": \"AutoencoderKL\",\n  \"act_fn\": \"silu\",\n  \"in_channels\": 3,\n"                       \
    "  \"latent_channels\": 4,\n  \"out_channels\": 3,\n  \"scaling_factor\": 0.18215,\n"
#define VAE_FULL(sample)                                                                                               \
    VAE_HEAD "  \"block_out_channels\": [128, 256, 512, 512],\n"                                                       \
    "  \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\", "                \
    "\"DownEncoderBlock2D\"],\n"                                                                                       \
    "  \"layers_per_block\": 2,\n  \"norm_num_groups\": 32,\n  \"sample_size\": " sample ",\n"                         \
    "  \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", "                        \
    "\"UpDecoderBlock2D\"]\n}\n"

#define CLIP_HEAD                                                                                                      \
    "{\n  \"architectures\": [\"CLIPTextModel\"],\n  \"attention_dropout\": 0.0,\n  \"layer_norm_eps\": 1e-05,\n"      \
    "  \"initializer_factor\": 1.0,\n  \"initializer_range\": 0.02,\n  \"max_position_embeddings\": 77,\n"             \
    "  \"model_type\": \"clip_text_model\",\n"

#define SCHEDULER_TAIL                                                                                                 \
    "  \"beta_end\": 0.012,\n  \"beta_schedule\": \"scaled_linear\",\n  \"beta_start\": 0.00085,\n"                    \
    "  \"clip_sample\": false,\n  \"num_train_timesteps\": 1000,\n  \"set_alpha_to_one\": false,\n"                    \
    "  \"steps_offset\": 1,\n  \"trained_betas\": null\n}\n"
#define SCHEDULER_PNDM                                                                                                 \
    "{\n  \"_class_name\": \"PNDMScheduler\",\n  \"prediction_type\": \"epsilon\",\n  \"skip_prk_steps\": true,\n"     \
    SCHEDULER_TAIL
#define SCHEDULER_DDIM_V                                                                                               \
    "{\n  \"_class_name\": \"DDIMScheduler\",\n  \"prediction_type\": \"v_prediction\",\n" SCHEDULER_TAIL

static const preset presets[] = {
    // SD 1.x's structure at the smallest sizes that leave nothing out; the tokenizer knows single bytes only.
    {"tiny", "unet",
     UNET_HEAD "  \"attention_head_dim\": 2,\n  \"block_out_channels\": [16, 32, 32],\n  \"cross_attention_dim\": 32,\n"
     "  \"down_block_types\": [\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"DownBlock2D\"],\n"
     "  \"up_block_types\": [\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"],\n"
     "  \"norm_num_groups\": 8,\n  \"sample_size\": 16,\n" UNET_TAIL},
    {"tiny", "vae",
     VAE_HEAD "  \"block_out_channels\": [16, 16, 32],\n"
     "  \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\"],\n"
     "  \"layers_per_block\": 1,\n  \"norm_num_groups\": 8,\n  \"sample_size\": 64,\n"
     "  \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]\n}\n"},
    {"tiny", "text_encoder",
     CLIP_HEAD "  \"bos_token_id\": 512,\n  \"eos_token_id\": 513,\n  \"hidden_act\": \"quick_gelu\",\n"
     "  \"hidden_size\": 32,\n  \"intermediate_size\": 128,\n  \"num_attention_heads\": 2,\n"
     "  \"num_hidden_layers\": 2,\n  \"pad_token_id\": 1,\n  \"projection_dim\": 32,\n  \"vocab_size\": 514\n}\n"},
    {"tiny", "scheduler", SCHEDULER_PNDM},

    // The same with four levels, at two fifths of the width of SD 1.x: for benchmarks.
    {"medium", "unet",
     UNET_HEAD "  \"attention_head_dim\": 8,\n  \"block_out_channels\": [128, 256, 512, 512],\n"
     "  \"cross_attention_dim\": 256,\n  \"norm_num_groups\": 32,\n  \"sample_size\": 32,\n" UNET_THREE_DOWN UNET_TAIL},
    {"medium", "vae",
     VAE_HEAD "  \"block_out_channels\": [32, 64, 128, 128],\n"
     "  \"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\", "
     "\"DownEncoderBlock2D\"],\n"
     "  \"layers_per_block\": 1,\n  \"norm_num_groups\": 32,\n  \"sample_size\": 256,\n"
     "  \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", "
     "\"UpDecoderBlock2D\"]\n}\n"},
    {"medium", "text_encoder",
     CLIP_HEAD "  \"bos_token_id\": 512,\n  \"eos_token_id\": 513,\n  \"hidden_act\": \"quick_gelu\",\n"
     "  \"hidden_size\": 256,\n  \"intermediate_size\": 1024,\n  \"num_attention_heads\": 4,\n"
     "  \"num_hidden_layers\": 4,\n  \"pad_token_id\": 1,\n  \"projection_dim\": 256,\n  \"vocab_size\": 514\n}\n"},
    {"medium", "scheduler", SCHEDULER_PNDM},

    {"sd14", "unet",
     UNET_HEAD "  \"attention_head_dim\": 8,\n  \"block_out_channels\": [320, 640, 1280, 1280],\n"
     "  \"cross_attention_dim\": 768,\n  \"norm_num_groups\": 32,\n  \"sample_size\": 64,\n" UNET_THREE_DOWN UNET_TAIL},
    {"sd14", "vae", VAE_FULL("512")},
    {"sd14", "text_encoder",
     CLIP_HEAD "  \"bos_token_id\": 49406,\n  \"eos_token_id\": 49407,\n  \"hidden_act\": \"quick_gelu\",\n"
     "  \"hidden_size\": 768,\n  \"intermediate_size\": 3072,\n  \"num_attention_heads\": 12,\n"
     "  \"num_hidden_layers\": 12,\n  \"pad_token_id\": 1,\n  \"projection_dim\": 768,\n  \"vocab_size\": 49408\n}\n"},
    {"sd14", "scheduler", SCHEDULER_PNDM},

    {"sd21", "unet",
     UNET_HEAD "  \"attention_head_dim\": [5, 10, 20, 20],\n  \"block_out_channels\": [320, 640, 1280, 1280],\n"
     "  \"cross_attention_dim\": 1024,\n  \"norm_num_groups\": 32,\n  \"sample_size\": 96,\n"
     "  \"upcast_attention\": true,\n  \"use_linear_projection\": true,\n" UNET_THREE_DOWN UNET_TAIL},
    {"sd21", "vae", VAE_FULL("768")},
    {"sd21", "text_encoder",
     CLIP_HEAD "  \"bos_token_id\": 49406,\n  \"eos_token_id\": 49407,\n  \"hidden_act\": \"gelu\",\n"
     "  \"hidden_size\": 1024,\n  \"intermediate_size\": 4096,\n  \"num_attention_heads\": 16,\n"
     "  \"num_hidden_layers\": 23,\n  \"pad_token_id\": 1,\n  \"projection_dim\": 512,\n  \"vocab_size\": 49408\n}\n"},
    {"sd21", "scheduler", SCHEDULER_DDIM_V},

    {"sdxl", "unet",
     UNET_HEAD "  \"addition_embed_type\": \"text_time\",\n  \"addition_time_embed_dim\": 256,\n"
     "  \"attention_head_dim\": [5, 10, 20],\n  \"block_out_channels\": [320, 640, 1280],\n"
     "  \"cross_attention_dim\": 2048,\n"
     "  \"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\"],\n"
     "  \"up_block_types\": [\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"UpBlock2D\"],\n"
     "  \"norm_num_groups\": 32,\n  \"projection_class_embeddings_input_dim\": 2816,\n  \"sample_size\": 128,\n"
     "  \"transformer_layers_per_block\": [1, 2, 10],\n  \"use_linear_projection\": true,\n" UNET_TAIL},
};
// clang-format on

const char *pb_preset_json(const char *name, const char *part) {
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, name) && !strcmp(presets[i].part, part)) return presets[i].json;
    return NULL;
}

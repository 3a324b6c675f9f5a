#include "io/weights_names.h"

#include <string.h>

static const struct {
    const char *name, *stem;
} parts[PB_PART_COUNT] = {
    [PB_PART_UNET] = {"unet", "diffusion_pytorch_model"},
    [PB_PART_TEXT_ENCODER] = {"text_encoder", "model"},
    [PB_PART_VAE] = {"vae", "diffusion_pytorch_model"},
    [PB_PART_TOKENIZER] = {"tokenizer", NULL},
    [PB_PART_SCHEDULER] = {"scheduler", NULL},
};

const char *pb_part_name(pb_part part) {
    return parts[part].name;
}

const char *pb_part_weights_stem(pb_part part) {
    return parts[part].stem;
}

bool pb_name_ends_with(const char *name, const char *end) {
    const size_t name_bytes = strlen(name), end_bytes = strlen(end);
    return name_bytes >= end_bytes && strcmp(name + name_bytes - end_bytes, end) == 0;
}

bool pb_name_is_pickle(const char *name) {
    static const char *const ends[] = {".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".bin.index.json"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (pb_name_ends_with(name, ends[i])) return true;
    return strstr(name, ".bin.index.") != NULL;
}

bool pb_name_is_weights(const char *name) {
    return pb_name_is_pickle(name) || pb_name_ends_with(name, ".safetensors") || pb_name_ends_with(name, ".onnx") ||
           strstr(name, ".safetensors.index.") != NULL;
}

const char *pb_name_without_variant(pb_arena *arena, const char *name, const char **variant, bool *no_memory) {
    // Both kinds are HEAD.VARIANT.TAIL, and the shards of a variant ("a.fp16-00001-of-00002.safetensors") are neither.
    static const char index[] = ".safetensors.index.";
    const char *begin = strstr(name, index), *tail = NULL;
    if (begin && pb_name_ends_with(name, ".json")) {
        begin += strlen(index) - 1;
        tail = name + strlen(name) - strlen(".json");
    } else if (pb_name_ends_with(name, ".safetensors")) {
        tail = name + strlen(name) - strlen(".safetensors");
        begin = memchr(name, '.', (size_t)(tail - name));
    }
    if (!begin || !tail || tail - begin < 2 || memchr(begin + 1, '.', (size_t)(tail - begin - 1)) ||
        strstr(begin, "-of-"))
        return NULL;
    const char *plain = pb_arena_format(arena, "%.*s%s", (int)(begin - name), name, tail);
    const char *middle = pb_arena_string_n(arena, begin + 1, (size_t)(tail - begin - 1));
    if (!plain || !middle) {
        *no_memory = true;
        return NULL;
    }
    if (variant) *variant = middle;
    return plain;
}

static bool has(const char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

// "STEM.safetensors", else its index; with a variant the names that diffusers and transformers give it.
static pb_status choose_named(pb_arena *arena, const char *const *names, size_t count, const char *stem,
                              const char *variant, const char **chosen) {
    static const char *const plain[] = {"%s.safetensors", "%s.safetensors.index.json", NULL};
    static const char *const varied[] = {"%s.%s.safetensors", "%s.safetensors.index.%s.json",
                                         "%s.%s.safetensors.index.json"};
    for (int i = 0; i < 3; i++) {
        const char *name = variant    ? pb_arena_format(arena, varied[i], stem, variant)
                           : plain[i] ? pb_arena_format(arena, plain[i], stem)
                                      : "";
        if (!name) return pb_error(PB_ERR_MEMORY, "no memory for a name");
        if (!has(names, count, name)) continue;
        *chosen = name;
        return PB_OK;
    }
    return PB_OK;
}

// The one variant that is there.
static pb_status choose_lone(pb_arena *arena, const char *folder, const char *const *names, size_t count,
                             const char *stem, const char **chosen) {
    const char *found = NULL;
    const size_t stem_bytes = strlen(stem);
    for (size_t i = 0; i < count; i++) {
        const char *variant = NULL;
        bool no_memory = false;
        const char *plain = pb_name_without_variant(arena, names[i], &variant, &no_memory);
        if (no_memory) return pb_error(PB_ERR_MEMORY, "no memory for a name");
        if (!plain || strncmp(plain, stem, stem_bytes) != 0 || strncmp(plain + stem_bytes, ".safetensors", 12) != 0)
            continue;
        if (found && strcmp(found, variant) != 0)
            return pb_error(PB_ERR_USAGE, "%s has the variants %s and %s: choose with `variant: %s`", folder, found,
                            variant, found);
        found = variant;
        *chosen = names[i];
    }
    return PB_OK;
}

pb_status pb_weights_choose(pb_arena *arena, const char *folder, const char *const *names, size_t count,
                            const char *stem, const char *variant, const char **chosen) {
    *chosen = NULL;
    if (variant && *variant) PB_RETURN_IF(choose_named(arena, names, count, stem, variant, chosen));
    if (!*chosen) PB_RETURN_IF(choose_named(arena, names, count, stem, NULL, chosen));
    if (!*chosen && (!variant || !*variant)) PB_RETURN_IF(choose_lone(arena, folder, names, count, stem, chosen));
    if (*chosen) return PB_OK;
    for (size_t i = 0; i < count; i++)
        if (pb_name_is_pickle(names[i]))
            return pb_error(PB_ERR_UNSUPPORTED, "%s has its weights only as %s: %s", folder, names[i],
                            PB_WEIGHTS_REMEDY);
    return pb_error(PB_ERR_FORMAT, "%s has no weights: there is no %s.safetensors%s%s%s", folder, stem,
                    variant && *variant ? ", nor its variant `" : "", variant ? variant : "",
                    variant && *variant ? "`" : "");
}

pb_status pb_weights_has_variant(pb_arena *arena, const char *const *names, size_t count, const char *stem,
                                 const char *variant, bool *found, const char **other, bool *any) {
    const char *chosen = NULL;
    const size_t stem_bytes = strlen(stem);
    PB_RETURN_IF(choose_named(arena, names, count, stem, variant, &chosen));
    *found = chosen != NULL;
    for (size_t i = 0; i < count; i++) {
        const char *name = NULL;
        bool no_memory = false;
        if (strncmp(names[i], stem, stem_bytes) != 0 || !pb_name_is_weights(names[i])) continue;
        *any = true;
        if (pb_name_without_variant(arena, names[i], &name, &no_memory)) *other = name;
        if (no_memory) return pb_error(PB_ERR_MEMORY, "no memory for a name");
    }
    return PB_OK;
}

static bool starts_with(const char *name, const char *begin) {
    return strncmp(name, begin, strlen(begin)) == 0;
}

// transformers 5 writes a CLIPTextModel's tensors without the "text_model." that all before it wrote.
static const char *clip_canonical(pb_arena *arena, const char *name) {
    if (starts_with(name, "embeddings.") || starts_with(name, "encoder.") || starts_with(name, "final_layer_norm."))
        return pb_arena_format(arena, "text_model.%s", name);
    return name;
}

// Attention in VAEs had names of its own before diffusers 0.15.
static const char *vae_canonical(pb_arena *arena, const char *name) {
    static const char *const renamed[][2] = {
        {".query.", ".to_q."}, {".key.", ".to_k."}, {".value.", ".to_v."}, {".proj_attn.", ".to_out.0."}};
    const char *attention = strstr(name, ".attentions.");
    for (size_t i = 0; attention && i < sizeof renamed / sizeof *renamed; i++) {
        const char *old = strstr(attention, renamed[i][0]);
        if (old)
            return pb_arena_format(arena, "%.*s%s%s", (int)(old - name), name, renamed[i][1],
                                   old + strlen(renamed[i][0]));
    }
    return name;
}

const char *pb_weight_canonical(pb_arena *arena, pb_part part, const char *name) {
    return part == PB_PART_TEXT_ENCODER ? clip_canonical(arena, name)
           : part == PB_PART_VAE        ? vae_canonical(arena, name)
                                        : name;
}

// Of a text encoder: a constant that old versions saved, and what stands beside it in files that were cut from a whole
// CLIP model. None of it reaches the hidden states, and transformers passes over it, too.
bool pb_weight_is_ignored(pb_part part, const char *name) {
    static const char *const others[] = {"text_projection.", "logit_scale", "logit_bias", "vision_model.",
                                         "visual_projection."};
    if (part != PB_PART_TEXT_ENCODER) return false;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (starts_with(name, others[i])) return true;
    return pb_name_ends_with(name, "embeddings.position_ids");
}

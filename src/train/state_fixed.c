#include "train/state_fixed.h"

#include <inttypes.h>
#include <string.h>

#include "base/fs.h"
#include "io/yaml.h"

static const char *const picture_lists[PB_SIDES] = {"instance pictures", "class pictures"};

void pb_fixed_append(const pb_trainer *t, pb_text *text) {
    const pb_config *c = t->config;
    pb_text_append(text, "{\"compute\": \"%s\", \"train_text_encoder\": %d, \"with_prior_preservation\": %d, ",
                   pb_dtype_name(t->request.compute), c->train_text_encoder, c->with_prior_preservation);
    pb_text_append(text, "\"optimizer\": [%d, %d], ", (int)c->optimizer.states, (int)c->optimizer.master);
    pb_text_append(text, "\"frozen_weights\": %d, ", (int)c->frozen_weights);
    pb_text_append(text, "\"train_batch_size\": %" PRId64 ", \"gradient_accumulation_steps\": %" PRId64 ", ",
                   c->train_batch_size, c->gradient_accumulation_steps);
    pb_text_append(text, "\"resolution\": %" PRId64 ", \"center_crop\": %d, \"offset_noise\": %d", c->resolution,
                   c->center_crop, c->offset_noise);
    for (int side = 0; side < PB_SIDES; side++) {
        const pb_picture_set *set = &t->data.set[side];
        pb_text_append(text, ", \"%s\": [", picture_lists[side]);
        for (int64_t i = 0; i < set->count; i++) {
            if (i) pb_text_append(text, ", ");
            pb_text_append_json_string(text, set->names[i], strlen(set->names[i]));
        }
        pb_text_append(text, "]");
    }
    pb_text_append(text, "}");
}

// --- Comparing ---

static bool json_equal(const pb_json *a, const pb_json *b) {
    if (a->type != b->type || a->count != b->count) return false;
    if (a->type == PB_JSON_STRING)
        return a->string_bytes == b->string_bytes && !memcmp(a->string, b->string, a->string_bytes);
    if (a->type == PB_JSON_NUMBER) return a->number == b->number;
    const pb_json *y = b->first;
    for (const pb_json *x = a->first; x; x = x->next, y = y->next)
        if (!json_equal(x, y)) return false;
    return true;
}

// A list of names that lacks one of the other's: that name; else NULL.
static const char *name_besides(const pb_json *names, const pb_json *other) {
    for (const pb_json *x = names ? names->first : NULL; x; x = x->next) {
        bool found = x->type != PB_JSON_STRING;
        for (const pb_json *y = other ? other->first : NULL; y && !found; y = y->next) found = json_equal(x, y);
        if (!found) return x->string;
    }
    return NULL;
}

static const char *const remedy = "undo the change, or start afresh in another output_dir";

static pb_status other_pictures(const char *path, const char *key, const pb_json *before, const pb_json *now) {
    const char *gone = name_besides(before, now), *added = name_besides(now, before);
    return pb_error(PB_ERR_USAGE, "%s: `%s` has not the pictures that the checkpoint was made with (%s%s%s%s%s): %s",
                    path, key, gone ? gone : "", gone ? " is gone" : "", gone && added ? ", " : "", added ? added : "",
                    added ? " is new" : "", remedy);
}

// How a key of `fixed` and its value are written in a configuration.
static const char *value_text(const char *key, const pb_json *value, char room[32]) {
    static const char *const truths[] = {"train_text_encoder", "with_prior_preservation", "center_crop",
                                         "offset_noise"};
    if (!value) return "not there";
    if (value->type == PB_JSON_STRING)  // the type that a step computes in
        return !strcmp(value->string, "F16") ? "fp16" : !strcmp(value->string, "BF16") ? "bf16" : "no";
    for (size_t i = 0; i < sizeof truths / sizeof *truths; i++)
        if (!strcmp(key, truths[i])) return value->number != 0 ? "true" : "false";
    if (!strcmp(key, "frozen_weights") || !strncmp(key, "optimizer.", 10))
        return pb_config_choice_name(key, (int)value->number);
    snprintf(room, 32, "%.17g", value->number);
    return room;
}

static pb_status changed(const char *path, const char *key, const pb_json *before, const pb_json *now) {
    char rooms[2][32];
    if (!strcmp(key, picture_lists[PB_SIDE_INSTANCE])) return other_pictures(path, "instance_data_dir", before, now);
    if (!strcmp(key, picture_lists[PB_SIDE_CLASS])) return other_pictures(path, "class_data_dir", before, now);
    if (!strcmp(key, "optimizer")) {  // [states, master]; one of them differs
        const bool states = !before || before->count != 2 || !json_equal(before->first, now->first);
        const pb_json *was = !before || before->count != 2 ? NULL : states ? before->first : before->first->next;
        key = states ? "optimizer.states" : "optimizer.master";
        return changed(path, key, was, states ? now->first : now->first->next);
    }
    return pb_error(PB_ERR_USAGE, "%s: `%s` was %s when the checkpoint was made, and is %s: %s", path,
                    strcmp(key, "compute") ? key : "mixed_precision", value_text(key, before, rooms[0]),
                    value_text(key, now, rooms[1]), remedy);
}

pb_status pb_fixed_compare(const pb_trainer *t, const pb_json *saved, const char *path) {
    pb_text text = {0};
    const pb_json *now;
    pb_fixed_append(t, &text);
    pb_status status = text.failed ? pb_error(PB_ERR_MEMORY, "no memory to compare %s", path)
                                   : pb_json_parse(t->arena, text.data, text.bytes, path, &now);
    const bool to_come =
        t->config->with_prior_preservation && t->data.set[PB_SIDE_CLASS].count < t->config->num_class_images;
    for (const pb_json *item = status == PB_OK ? now->first : NULL; item && status == PB_OK; item = item->next) {
        const pb_json *before = pb_json_get(saved, item->key);
        // A checkpoint that is older than a choice was made with the first one.
        if (before ? json_equal(before, item) : item->type == PB_JSON_NUMBER && !item->integer) continue;
        if (to_come && !strcmp(item->key, picture_lists[PB_SIDE_CLASS])) continue;
        status = changed(path, item->key, before, item);
    }
    pb_text_deinit(&text);
    return status;
}

// --- What may change ---

void pb_fixed_note_changes(pb_trainer *t, const char *path) {
    static const char *const keys[] = {"pretrained_model_name_or_path",
                                       "variant",
                                       "tokenizer_name",
                                       "instance_prompt",
                                       "class_prompt",
                                       "prior_loss_weight",
                                       "learning_rate",
                                       "scale_lr",
                                       "lr_scheduler",
                                       "lr_warmup_steps",
                                       "lr_num_cycles",
                                       "lr_power",
                                       "adam_beta1",
                                       "adam_beta2",
                                       "adam_weight_decay",
                                       "adam_epsilon",
                                       "max_grad_norm",
                                       "snr_gamma",
                                       "max_train_steps",
                                       "memory.micro_batch"};
    pb_config before;
    pb_text text = {0};
    if (pb_config_gather(t->arena, path, NULL, 0, &before) == PB_OK) {
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            pb_text values[2] = {{0}};
            pb_config_print_value(&before, keys[i], &values[0]);
            pb_config_print_value(t->config, keys[i], &values[1]);
            const bool differ = values[0].data && values[1].data && strcmp(values[0].data, values[1].data);
            if (differ) pb_text_append(&text, "%s%s was %s", text.bytes ? ", " : "", keys[i], values[0].data);
            for (int k = 0; k < 2; k++) pb_text_deinit(&values[k]);
        }
        if (text.bytes && !text.failed)
            pb_progress_note(&t->progress, "since that checkpoint the configuration has changed: %s", text.data);
    }
    pb_error_clear();
    pb_text_deinit(&text);
}

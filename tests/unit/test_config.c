// test: links=io,base
#include "check.h"

#include "io/run_config.h"
#include "scratch.h"

static pb_arena *arena;
static pb_config config;

static pb_status read_text(const char *text) {
    pb_error_clear();
    if (pb_config_init(arena, &config) != PB_OK) return PB_ERR_MEMORY;
    return pb_config_read(&config, text, strlen(text), "run.yaml");
}

static bool fails(const char *text, const char *message) {
    const pb_status status = read_text(text);
    if (status == PB_ERR_FORMAT && strstr(pb_error_message(), message)) return true;
    fprintf(stderr, "%s: status %d, \"%s\"\n", text, (int)status, pb_error_message());
    return false;
}

static void test_defaults(void) {
    CHECK_OK(pb_config_init(arena, &config));
    CHECK(!config.pretrained_model_name_or_path && config.resolution == 512 && !config.center_crop &&
          config.train_batch_size == 4);
    CHECK(config.learning_rate == 5e-6 && strcmp(config.lr_scheduler, "constant") == 0 &&
          config.lr_warmup_steps == 500);
    CHECK(config.adam_beta1 == 0.9 && config.adam_beta2 == 0.999 && config.adam_weight_decay == 1e-2 &&
          config.adam_epsilon == 1e-8);
    CHECK(config.max_grad_norm == 1.0 && config.checkpointing_steps == 500 && config.checkpoints_total_limit == 2);
    CHECK(!config.seed.set && !config.max_train_steps.set && !config.snr_gamma.set && !config.resume_from_checkpoint);
    CHECK(config.mixed_precision == PB_F32 && config.save_precision == PB_PRECISION_SOURCE &&
          config.num_class_images == 100);
    CHECK(strcmp(config.output_dir, "dreambooth-model") == 0 && config.prior_loss_weight == 1.0 &&
          config.sample_batch_size == 4);
    CHECK(config.memory.device == PB_SIZE_AUTO && config.memory.placement == PB_PLACEMENT_AUTO &&
          config.memory.micro_batch == 0);
    CHECK(config.cache_latents && !config.strict_images && config.threads == 0 && strcmp(config.device, "auto") == 0);
    CHECK(config.note_count == 0);
}

static void test_reading(void) {
    CHECK_OK(read_text(
        "pretrained_model_name_or_path: models/sd\n"
        "instance_prompt: a photo of sks dog\n"
        "class_prompt: \"a: dog\"\n"
        "with_prior_preservation: true\n"
        "learning_rate: 1e-4\n"
        "seed: 7\n"
        "snr_gamma: 5\n"
        "mixed_precision: no\n"
        "lr_scheduler: cosine_with_restarts\n"
        "prior_generation_precision: bf16\n"
        "save_precision: fp16\n"
        "threads: 2\n"
        "max_train_steps: null\n"
        "memory: {device: 8GiB, host: none, nvme: /scratch, nvme_size: 1.5 GB, placement: host, micro_batch: 2}\n"));
    CHECK(strcmp(config.pretrained_model_name_or_path, "models/sd") == 0 && strcmp(config.class_prompt, "a: dog") == 0);
    CHECK(config.with_prior_preservation && config.learning_rate == 1e-4 && config.seed.set && config.seed.value == 7);
    CHECK(config.snr_gamma.set && config.snr_gamma.value == 5 && config.mixed_precision == PB_F32 &&
          !config.max_train_steps.set);
    CHECK(strcmp(config.lr_scheduler, "cosine_with_restarts") == 0 && config.prior_generation_precision == PB_BF16);
    CHECK(config.save_precision == PB_F16 && config.threads == 2);
    CHECK(config.memory.device == 8ll << 30 && config.memory.host == 0 && strcmp(config.memory.nvme, "/scratch") == 0);
    CHECK(config.memory.nvme_size == 1500000000 && config.memory.placement == PB_PLACEMENT_HOST &&
          config.memory.micro_batch == 2);
    CHECK_OK(read_text(
        "instance_prompt: 123\nlearning_rate:\nmixed_precision: null\noutput_dir: ~\nthreads: auto\nmemory:\n"));
    CHECK(strcmp(config.instance_prompt, "123") == 0 && config.learning_rate == 5e-6 &&
          config.mixed_precision == PB_F32);
    CHECK(strcmp(config.output_dir, "dreambooth-model") == 0);
    CHECK_OK(read_text(""));
    static const struct {
        const char *text;
        int64_t bytes;
    } sizes[] = {{"8589934592", 8ll << 30},
                 {"8G", 8ll << 30},
                 {"8 GiB", 8ll << 30},
                 {"8GB", 8000000000},
                 {"8gb", 8000000000},
                 {"512MiB", 512 << 20},
                 {"1TiB", 1ll << 40},
                 {"0.5KiB", 512},
                 {"12B", 12},
                 {"auto", -1},
                 {"none", 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char text[64];
        snprintf(text, sizeof text, "memory: {device: %s}", sizes[i].text);
        CHECK_OK(read_text(text));
        CHECK_THAT(config.memory.device == sizes[i].bytes, "%s", sizes[i].text);
    }
}

static void test_mistakes(void) {
    CHECK(fails("a: 1\nlearning_rte: 1\n", "run.yaml:1:1: unknown key `a`"));
    CHECK(
        fails("seed: 1\nlearning_rte: 1\n", "run.yaml:2:1: unknown key `learning_rte`: did you mean `learning_rate`?"));
    CHECK(fails("learning-rate: 1\n", "did you mean `learning_rate`?"));
    CHECK(fails("memory: {devise: 1}\n", "run.yaml:1:10: unknown key `memory.devise`: did you mean `memory.device`?"));
    CHECK(fails("memory.device: 1\n",
                "run.yaml:1:1: `memory.device` is written in its group in a file, as in `memory: {device"));
    CHECK(fails("tokenizer_max_length: 1\n", "a whole number from 2 to"));
    CHECK(fails("memory: 8GiB\n", "group of keys"));
    CHECK(fails("<<: {seed: 1}\n", "unknown key `<<`"));
    CHECK(fails("mixed_precision: fp61\n",
                "`mixed_precision` cannot be `fp61`: it is one of no, fp16, bf16; did you mean `fp16`?"));
    CHECK(fails("lr_scheduler: cosinus\n", "cosine_with_restarts, polynomial, constant, constant_with_warmup"));
    CHECK(fails("seed: abc\n", "run.yaml:1:1: `seed` must be a whole number from 0 to 4294967295, or null, not `abc`"));
    CHECK(fails("seed: \"7\"\n", "whole number") && fails("seed: -1\n", "whole number") &&
          fails("seed: 4294967296\n", "whole"));
    CHECK(fails("seed: 99999999999999999999\n", "whole number") && fails("seed: 1.5\n", "whole number"));
    CHECK(fails("train_batch_size: 0\n", "from 1 to 4096") && fails("train_batch_size: 1_0\n", "whole number"));
    CHECK(fails("resolution: 0\n", "from 8") && fails("resolution: [512]\n", "single value"));
    CHECK(fails("learning_rate: fast\n", "must be a number") && fails("learning_rate: -1e-4\n", "must be a number"));
    CHECK(fails("learning_rate: .nan\n", "must be a number") && fails("learning_rate: 1e999\n", "must be a number"));
    CHECK(fails("snr_gamma: -1\n", "must be a number") && fails("adam_beta1: 1\n", "must be a number"));
    CHECK(fails("center_crop: yes\n", "true or false, not `yes`") && fails("center_crop: 1\n", "true or false"));
    CHECK(fails("threads: 0\n", "or `auto`") && fails("threads: many\n", "or `auto`"));
    static const char *const sizes[] = {"8XB", "-8GB", "GB", "8GiBs", "0", "1e30GB", "x8GB", "8 G B", "nan", "0x10"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char text[64];
        snprintf(text, sizeof text, "memory: {host: %s}", sizes[i]);
        CHECK_THAT(fails(text, "must be a size"), "%s", sizes[i]);
    }
    CHECK(fails("- seed\n", "list of `key: value` lines") && fails("seed\n", "list of `key: value` lines"));
    CHECK(fails("seed: 1\nseed: 2\n", "run.yaml:2:1: the key `seed` is there twice"));
    CHECK(fails("push_to_hub: true\n", "network") && fails("optimizer: {states: 4bit}\n", "8bit"));
    CHECK(fails("class_labels_conditioning: timesteps\n", "cannot be set"));
}

// What somebody brings along from Python, a shell, Windows or another script.
static void test_habits(void) {
    CHECK(fails("learning_rate: \"5e-6\"\n", "not `5e-6` in quotes") && fails("seed: '7'\n", "`7` in quotes"));
    CHECK(fails("center_crop: 'true'\n", "not `true` in quotes"));
    CHECK(fails("memory: {device: 8}\n", "run.yaml:1:10: `memory.device: 8` is in bytes: give it a unit, as in 8GiB"));
    CHECK(fails("rank: 4\n", "no LoRA") && fails("lora_rank: 4\n", "no LoRA") && fails("use_ema: true\n", "no EMA"));
    CHECK(fails("train_data_dir: x\n", "instance_data_dir") && fails("dataset_name: x\n", "instance_prompt"));
    CHECK(fails("gradient_checkpoint: true\n", "did you mean `gradient_checkpointing`?"));
    CHECK(fails("class_prompt: a photo: of dog\n", "run.yaml:1:22: a colon where there can be none"));
    CHECK(fails("seed 1\nresolution: 64\n", "the line before a `key:`") &&
          fails("seed: 1\nresolution 64\n", "`key: value`"));
    CHECK(fails("class_prompt: \"open\n", "never closed"));
    CHECK(fails("class_prompt: caf\xe9\n", "save the file as UTF-8"));
    static const char wide[] = "\xff\xfes\0e\0e\0d\0:\0 \0001\0";
    CHECK_OK(pb_config_init(arena, &config));
    CHECK(pb_config_read(&config, wide, sizeof wide - 1, "run.yaml") == PB_ERR_FORMAT &&
          strstr(pb_error_message(), "run.yaml is in UTF-16: save the file as UTF-8"));
    CHECK_OK(read_text("\xef\xbb\xbfseed: 1\r\nclass_prompt: a 'b' \"c\" {d} \xc3\xbc\r\n"));
    CHECK(config.seed.value == 1 && !strcmp(config.class_prompt, "a 'b' \"c\" {d} \xc3\xbc"));
    // Paths as shells know them.
    CHECK(setenv("HOME", "/home/me", 1) == 0);
    CHECK_OK(read_text("output_dir: ~/out\ninstance_data_dir: \"~\"\nclass_data_dir: ./~/x\ninstance_prompt: ~/x\n"));
    CHECK(!strcmp(config.output_dir, "/home/me/out") && !strcmp(config.instance_data_dir, "/home/me"));
    CHECK(!strcmp(config.class_data_dir, "./~/x") && !strcmp(config.instance_prompt, "~/x"));
    CHECK(fails("output_dir: ~you/out\n", "only ~/ is known") && fails("output_dir: $OUT\n", "knows no variables"));
    CHECK(unsetenv("HOME") == 0);
    CHECK(fails("memory: {nvme: ~/swap}\n", "where HOME is set"));
}

static bool optimizer_fails(const char *text, const char *part) {
    CHECK_OK(read_text(text));
    return pb_config_check_optimizer(&config) == PB_ERR_USAGE && strstr(pb_error_message(), part);
}

static void test_optimizer(void) {
    CHECK_OK(read_text("use_8bit_adam: true\n"));
    CHECK(pb_config_check_optimizer(&config) == PB_OK && config.optimizer.states == PB_STATES_8BIT);
    CHECK_OK(read_text("mixed_precision: bf16\noptimizer: {states: 16bit, master: none}\n"));
    CHECK(pb_config_check_optimizer(&config) == PB_OK && config.optimizer.states == PB_STATES_16BIT &&
          config.optimizer.master == PB_MASTER_NONE);
    CHECK(optimizer_fails("use_8bit_adam: true\noptimizer: {states: 16bit}\n", "stands for"));
    CHECK(optimizer_fails("optimizer: {master: split8}\n", "mixed_precision: fp16 or bf16"));
    CHECK(optimizer_fails("mixed_precision: fp16\noptimizer: {master: none}\n", "mixed_precision: bf16"));
    CHECK(optimizer_fails("optimizer: {master: none}\n", "mixed_precision: bf16"));
}

static void test_inert(void) {
    CHECK_OK(
        read_text("gradient_checkpointing: true\nreport_to: wandb\nvalidation_images: [a, b]\nuse_8bit_adam: false\n"
                  "push_to_hub: null\nallow_tf32: false\n"));
    CHECK(config.note_count == 3 && strstr(config.notes[0], "`gradient_checkpointing` changes nothing here"));
    CHECK_OK(pb_config_set(&config, "report_to=wandb"));
    CHECK(config.note_count == 3);
}

static bool set_fails(const char *assignment, const char *message) {
    const pb_status status = pb_config_set(&config, assignment);
    return status == PB_ERR_USAGE && strstr(pb_error_message(), message);
}

static void test_set(void) {
    CHECK_OK(read_text("seed: 1\n"));
    CHECK_OK(pb_config_set(&config, "seed=2"));
    CHECK_OK(pb_config_set(&config, "learning_rate=1e-4"));
    CHECK_OK(pb_config_set(&config, "class_prompt=a photo: of # a [dog"));
    CHECK_OK(pb_config_set(&config, "instance_prompt=\"quoted\\n\""));
    CHECK_OK(pb_config_set(&config, "output_dir=a=b"));
    CHECK_OK(pb_config_set(&config, "memory.device=8GiB"));
    CHECK_OK(pb_config_set(&config, "mixed_precision=bf16"));
    CHECK(config.seed.value == 2 && config.learning_rate == 1e-4 &&
          strcmp(config.class_prompt, "a photo: of # a [dog") == 0);
    CHECK(strcmp(config.instance_prompt, "quoted\n") == 0 && strcmp(config.output_dir, "a=b") == 0);
    CHECK(config.memory.device == 8ll << 30 && config.mixed_precision == PB_BF16);
    CHECK_OK(pb_config_set(&config, "seed=null"));
    CHECK(!config.seed.set);
    CHECK_OK(pb_config_set(&config, "seed="));
    CHECK(set_fails("seed", "expected KEY=VALUE") && set_fails("=1", "expected KEY=VALUE"));
    CHECK(set_fails("sed=1", "did you mean `seed`?") && set_fails("seed=x", "--set seed: `seed` must be"));
    CHECK(set_fails("memory=1", "unknown key `memory`") &&
          set_fails("instance_prompt=\"open", "--set instance_prompt"));
    CHECK(set_fails("push_to_hub=true", "cannot be set") &&
          set_fails("placement=host", "did you mean `memory.placement`?"));
}

static void test_checks(void) {
    static const char *const sets[] = {"pretrained_model_name_or_path=m", "instance_data_dir=i", "instance_prompt=p",
                                       "with_prior_preservation=true",    "class_data_dir=c",    "class_prompt=q"};
    static const char *const missing[] = {"pretrained_model_name_or_path",
                                          "instance_data_dir",
                                          "instance_prompt",
                                          NULL,
                                          "class_data_dir",
                                          "class_prompt",
                                          NULL};
    for (size_t n = 0; n <= 6; n++) {
        const pb_status status = pb_config_load(arena, NULL, sets, n, &config);
        if (missing[n])
            CHECK_THAT(status == PB_ERR_USAGE && strstr(pb_error_message(), missing[n]), "%s", pb_error_message());
        else
            CHECK_OK(status);
    }
    CHECK(config.note_count == 0);
    CHECK_OK(pb_config_set(&config, "with_prior_preservation=false"));
    CHECK_OK(pb_config_check(&config));
    CHECK(config.note_count == 2);
    CHECK_OK(pb_config_set(&config, "memory.placement=nvme"));
    CHECK(pb_config_check(&config) == PB_ERR_USAGE && strstr(pb_error_message(), "memory.nvme"));
    CHECK_OK(pb_config_set(&config, "memory.nvme=/scratch"));
    CHECK_OK(pb_config_check(&config));
    CHECK(pb_config_load(arena, scratch_path("absent.yaml"), NULL, 0, &config) == PB_ERR_IO);
    CHECK_OK(pb_fs_write_file(scratch_path("run.yaml"), "instance_data_dir: x\nseed: 3\n", 29));
    CHECK_OK(pb_config_load(arena, scratch_path("run.yaml"),
                            (const char *const[]){"instance_prompt=p", "pretrained_model_name_or_path=m", "seed=4"}, 3,
                            &config));
    CHECK(config.seed.value == 4 && strcmp(config.instance_data_dir, "x") == 0);
}

// What is printed reads back to the same, whatever the values.
static void test_printing(void) {
    CHECK_OK(read_text(
        "instance_prompt: \"\\\"q\\\"\\\\ \\t# ä\\x7f\\x85\\u0080: \\e\"\nclass_prompt: \"\"\noutput_dir: "
        "'null'\nseed: 12\n"
        "learning_rate: 3.3333333333333335e-05\nsnr_gamma: 5\nmixed_precision: fp16\nlr_scheduler: polynomial\n"
        "memory: {device: 123456789, host: none, placement: host, micro_batch: 3}\ncheckpoints_total_limit: 0\n"
        "train_text_encoder: true\nthreads: 5\nsave_precision: bf16\ndevice: cpu\n"));
    const pb_config before = config;
    pb_text first = {0}, second = {0};
    pb_config_print(&config, &first);
    CHECK(!first.failed && strstr(first.data, "mixed_precision: fp16\n") &&
          strstr(first.data, "memory:\n  device: 123456789B\n"));
    CHECK(!strstr(first.data, "report_to") && !strstr(first.data, "push_to_hub"));
    CHECK_OK(read_text(first.data));
    pb_config_print(&config, &second);
    CHECK_THAT(strcmp(first.data, second.data) == 0, "%s\n%s", first.data, second.data);
    CHECK(strcmp(before.instance_prompt, config.instance_prompt) == 0 && config.class_prompt &&
          !config.class_prompt[0]);
    CHECK(strcmp(config.output_dir, "null") == 0 && config.learning_rate == before.learning_rate &&
          config.seed.value == 12);
    CHECK(config.snr_gamma.set && config.memory.device == 123456789 && config.memory.host == 0 && config.threads == 5);
    CHECK(config.mixed_precision == PB_F16 && config.save_precision == PB_BF16 && strcmp(config.device, "cpu") == 0);
    CHECK(config.checkpoints_total_limit == 0 && config.train_text_encoder && config.memory.nvme_size == PB_SIZE_AUTO);
    pb_text_deinit(&first);
    pb_text_deinit(&second);
    pb_config_document(&first);
    CHECK(!first.failed && strstr(first.data, "| `learning_rate` | 5e-6 |") &&
          strstr(first.data, "| `memory.device` | auto |"));
    CHECK(strstr(first.data, "| `push_to_hub` | | Refused: ") && strstr(first.data, "## Optimizer"));
    pb_text_deinit(&first);
}

int main(void) {
    arena = pb_arena_create();
    test_defaults();
    test_reading();
    test_mistakes();
    test_habits();
    test_inert();
    test_optimizer();
    test_set();
    test_checks();
    test_printing();
    scratch_remove();
    pb_arena_destroy(arena);
    return CHECK_DONE();
}

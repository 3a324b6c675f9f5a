// test: links=exec,cuda,cpu,base
// What `--device` may say, and what becomes of it on a machine with or without a GPU.
#include "base/device_name.h"
#include "check.h"
#include "exec/select.h"

static bool is(const char *text, pb_device_kind kind, int ordinal) {
    pb_device_kind got;
    int number = -1;
    return pb_device_name_parse("--device", text, &got, &number) == PB_OK && got == kind && number == ordinal;
}

int main(void) {
    CHECK(is(NULL, PB_DEVICE_AUTO, 0) && is("auto", PB_DEVICE_AUTO, 0) && is("cpu", PB_DEVICE_CPU, 0));
    CHECK(is("cuda", PB_DEVICE_CUDA, 0) && is("cuda:0", PB_DEVICE_CUDA, 0) && is("cuda:12", PB_DEVICE_CUDA, 12));
    static const char *const wrong[] = {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999", "cpu:0"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pb_device_kind kind;
        int ordinal;
        CHECK_THAT(pb_device_name_parse("--device", wrong[i], &kind, &ordinal) == PB_ERR_USAGE &&
                       strstr(pb_error_message(), "--device is auto, cpu, cuda or cuda:N"),
                   "`%s`: %s", wrong[i], pb_error_message());
    }

    const pb_backend *backend = NULL;
    CHECK(pb_backend_select("cpu", &backend) == PB_OK && backend == pb_backend_cpu());
    CHECK(pb_backend_select("nonsense", &backend) == PB_ERR_USAGE);
    // auto takes what works; the same GPU by its name then does, too.
    CHECK(pb_backend_select("auto", &backend) == PB_OK && backend);
    const bool gpu = backend != pb_backend_cpu();
    const pb_status status = pb_backend_select("cuda", &backend);
    CHECK(gpu ? status == PB_OK : status == PB_ERR_UNSUPPORTED);
    if (!gpu) CHECK_THAT(strstr(pb_error_message(), "--device cpu"), "no remedy: %s", pb_error_message());
    CHECK(pb_backend_select("cuda:99", &backend) == PB_ERR_UNSUPPORTED);

    // Plans for a card need none: built in, or by a profile that bench wrote on one. The sizes are that card's.
    CHECK(pb_backend_for_machine(pb_machine_builtin("generic")) == pb_backend_cpu());
    const pb_backend *card = pb_backend_for_machine(pb_machine_builtin("rtx3090"));
    const bool cuda = card != pb_backend_cpu();
    CHECK(card && card->workspaces && (!cuda || strcmp(card->name, "cuda") == 0));
    const pb_attr attr = {.conv = {.kh = 1, .kw = 1, .stride = 1, .in_h = 8, .in_w = 8}};
    const pb_tensor x = {NULL, PB_F16, PB_SHAPE4(1, 8, 8, 16)}, w = {NULL, PB_F16, PB_SHAPE4(16, 1, 1, 16)};
    const pb_kernel_args product = {.attr = &attr, .in = {x, w}, .out = {x}};
    static const struct {
        const char *name, *like;
    } profiles[] = {{"NVIDIA H200", "h200"},
                    {"NVIDIA H100 80GB HBM3", "h200"},
                    {"NVIDIA GeForce RTX 4090", "rtx4090"},
                    {"NVIDIA GeForce RTX 3080", "rtx3090"},
                    {"a card of mine", "rtx3090"}};
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        pb_machine machine = *pb_machine_builtin("rtx3060");
        snprintf(machine.name, sizeof machine.name, "%s", profiles[i].name);
        const pb_kernel_workspace query = pb_backend_for_machine(&machine)->workspaces[PB_OP_CONV2D];
        const uint64_t bytes = query(&product);
        const uint64_t like =
            pb_backend_for_machine(pb_machine_builtin(profiles[i].like))->workspaces[PB_OP_CONV2D](&product);
        CHECK_THAT(bytes == like, "%s: %llu bytes of scratch, %llu on %s", profiles[i].name, (unsigned long long)bytes,
                   (unsigned long long)like, profiles[i].like);
        machine.shared_cores = true;  // a profile of the CPU backend, whatever it is called
        CHECK(pb_backend_for_machine(&machine) == pb_backend_cpu());
    }
    return CHECK_DONE();
}

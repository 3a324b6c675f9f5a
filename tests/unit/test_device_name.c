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

    // Plans for a card need none.
    CHECK(pb_backend_for_machine(NULL) == pb_backend_cpu() && pb_backend_for_machine("generic") == pb_backend_cpu());
    const pb_backend *card = pb_backend_for_machine("rtx3090");
    CHECK(card && card->workspaces && (card == pb_backend_cpu() || strcmp(card->name, "cuda") == 0));
    return CHECK_DONE();
}

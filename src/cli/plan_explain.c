// A plan in words: what is where, what moves when and why, what is computed twice, what the time goes into.
#include <string.h>

#include "cli/plan_report.h"
#include "plan/timeline.h"

static const pb_class lasting[] = {PB_CLASS_WEIGHT, PB_CLASS_GRADIENT, PB_CLASS_STATE};
static const char *const tier_places[PB_TIER_COUNT] = {"on the device", "in host memory", "on NVMe"};
static const char *const class_titles[PB_CLASS_COUNT] = {
    [PB_CLASS_INPUT] = "Inputs",       [PB_CLASS_WEIGHT] = "Weights",         [PB_CLASS_STATE] = "Optimizer state",
    [PB_CLASS_GRADIENT] = "Gradients", [PB_CLASS_ACTIVATION] = "Activations", [PB_CLASS_WORKSPACE] = "Workspace"};

typedef struct explanation {
    const pb_memory_limits *limits;
    const pb_step_plan *plan;
    uint64_t home[PB_TIER_COUNT][PB_CLASS_COUNT];
    uint64_t moved[PB_LINK_COUNT][PB_CLASS_COUNT];
    pb_step_work work;
    FILE *file;
} explanation;

// Sizes in one sentence need room of their own.
typedef struct size_text {
    char text[32];
} size_text;

static size_text size(uint64_t bytes) {
    size_text s;
    pb_bytes_text(bytes, s.text);
    return s;
}

static uint64_t lasting_bytes(const explanation *e) {
    uint64_t sum = 0;
    for (int t = 0; t < PB_TIER_COUNT; t++)
        for (int c = 0; c < PB_CLASS_COUNT; c++) sum += e->home[t][c];
    return sum;
}

static void explain_verdict(const explanation *e) {
    const pb_step_plan *p = e->plan;
    const uint64_t budget = e->limits->request.budget[PB_TIER_DEVICE];
    if (!pb_step_plan_moves(p)) {
        fprintf(e->file, "Everything fits on the device");
        if (budget != UINT64_MAX)
            fprintf(e->file, ": %s of the %s that it has", size(p->peak[PB_TIER_DEVICE]).text, size(budget).text);
        fprintf(e->file, ". What fits is not moved, so nothing is.\n");
        return;
    }
    fprintf(
        e->file,
        "Not everything fits on the device: it has %s. Weights, gradients and optimizer state take %s, and\n"
        "activations %s more when the backward pass begins. So some of it lives below, and comes to the device for\n"
        "as long as it is used.\n",
        size(budget).text, size(lasting_bytes(e)).text, size(p->kept_activations).text);
    if (e->limits->request.state == PB_STATE_ON_HOST)
        fprintf(e->file, "memory.placement keeps optimizer state on the host.\n");
    if (e->limits->request.state == PB_STATE_ON_NVME)
        fprintf(e->file, "memory.placement keeps optimizer state on NVMe.\n");
}

static void explain_homes(const explanation *e) {
    fprintf(e->file, "\nBetween two steps\n");
    for (size_t i = 0; i < sizeof lasting / sizeof *lasting; i++) {
        const pb_class c = lasting[i];
        bool any = false;
        for (int t = 0; t < PB_TIER_COUNT; t++) {
            if (!e->home[t][c]) continue;
            if (any)
                fprintf(e->file, ", ");
            else
                fprintf(e->file, "  %s: ", class_titles[c]);
            fprintf(e->file, "%s %s", size(e->home[t][c]).text, tier_places[t]);
            any = true;
        }
        if (any) fprintf(e->file, ".\n");
        if (!any && c == PB_CLASS_GRADIENT)
            fprintf(e->file, "  Gradients: none are kept; each is used up within the step.\n");
    }
}

static void explain_moves(const explanation *e) {
    const char *const why[PB_CLASS_COUNT] = {
        [PB_CLASS_WEIGHT] = e->work.updated_on_host
                                ? "made anew by the host's updates, and fetched ahead of the ops that read them"
                                : "fetched ahead of the ops that read them, and dropped again; written back only when "
                                  "an update has changed them",
        [PB_CLASS_STATE] = "needed once a step, by the update just before the parameter's first use",
        [PB_CLASS_GRADIENT] = "held until the norm of all of them is known, for the clip and the overflow check are "
                              "exact; their update is made in the next step",
        [PB_CLASS_ACTIVATION] =
            "dearer to compute again than to ship: made in the forward pass, needed in the backward "
            "pass",
        [PB_CLASS_INPUT] = "what steers the updates on the host: learning rate, norm, loss scale",
    };
    bool any = false;
    for (int c = 0; c < PB_CLASS_COUNT; c++) {
        const uint64_t up = e->moved[PB_LINK_UPLOAD][c], down = e->moved[PB_LINK_DOWNLOAD][c];
        const uint64_t read = e->moved[PB_LINK_NVME_READ][c], written = e->moved[PB_LINK_NVME_WRITE][c];
        if (!up && !down && !read && !written) continue;
        if (!any) fprintf(e->file, "\nMoved in every step\n");
        any = true;
        fprintf(e->file, "  %s: %s to the device, %s back", class_titles[c], size(up).text, size(down).text);
        if (read || written) fprintf(e->file, "; %s read from NVMe, %s written", size(read).text, size(written).text);
        fprintf(e->file, ".\n");
        if (why[c]) fprintf(e->file, "    They are %s.\n", why[c]);
    }
    if (any && e->moved[PB_LINK_UPLOAD][PB_CLASS_ACTIVATION] == 0)
        fprintf(e->file, "  Activations stay on the device.\n");
}

static void explain_updates(const explanation *e) {
    const int64_t device = e->work.updated_on_device, host = e->work.updated_on_host, all = device + host;
    if (!all) return;
    fprintf(e->file, "\nUpdates\n");
    if (!e->plan->deferred) {
        fprintf(e->file, "  All %lld parameters are updated on the device, at the end of the step.\n", (long long)all);
        return;
    }
    fprintf(e->file,
            "  A step's update is put off to the beginning of the next one, where each parameter's state is worked on\n"
            "  just before its weight is used. The last step's update is made before a checkpoint and at the end.\n");
    if (device)
        fprintf(e->file, "  %.1f%% of the parameters are updated on the device%s.\n",
                100.0 * (double)device / (double)all,
                host || !pb_step_plan_moves(e->plan)
                    ? ""
                    : ": the links bring the state sooner than the host could do the work");
    if (host)
        fprintf(e->file,
                "  %.1f%% are updated by the host, so that gradients and weights move and the state does not.\n",
                100.0 * (double)host / (double)all);
}

static void explain_recomputation(const explanation *e) {
    char seconds[32];
    const pb_repeated *cheap = &e->work.cheap, *gradients = &e->work.gradients, *copies = &e->work.copies;
    const pb_repeated *dear = &e->work.contractions;
    if (cheap->ops || gradients->ops || copies->ops || dear->ops) fprintf(e->file, "\nComputed twice\n");
    if (cheap->ops)
        fprintf(e->file,
                "  %u cheap ops (norms, SiLU, GELU, concatenation) run again in the backward pass, for %s;\n"
                "  %s of their results are not kept from the forward pass.\n",
                cheap->ops, pb_seconds_text(cheap->seconds, seconds), size(cheap->bytes).text);
    if (dear->ops)
        fprintf(e->file,
                "  %u linear layers, convolutions and attentions run again as well, for %s;\n"
                "  %s of their results are not kept either.\n",
                dear->ops, pb_seconds_text(dear->seconds, seconds), size(dear->bytes).text);
    if (cheap->ops || dear->ops)
        fprintf(e->file, "  %s of activations are kept.\n", size(e->plan->kept_activations).text);
    if (gradients->ops)
        fprintf(e->file,
                "  %u weights' gradients are made again just before their update in the next step, for %s;\n"
                "  %s of them are not kept till then, but %s of what they are made of.\n",
                gradients->ops, pb_seconds_text(gradients->seconds, seconds), size(gradients->bytes).text,
                size(e->work.carried).text);
    if (copies->ops)
        fprintf(e->file,
                "  %s of 16-bit weights are not kept from the forward to the backward pass, but made again of their\n"
                "  fp32 masters, which stay on the device: that moves nothing, and takes %s.\n",
                size(copies->bytes).text, pb_seconds_text(copies->seconds, seconds));
}

static void explain_time(const explanation *e) {
    const pb_step_forecast *f = &e->plan->step;
    char seconds[32], bound[32];
    fprintf(e->file,
            "\nTime\n  A step takes %s on %s. With these ops in this order, these moves and this memory\n"
            "  none takes less than %s,",
            pb_seconds_text(f->seconds, seconds), pb_plan_machine_name(e->limits),
            pb_seconds_text(f->lower_bound, bound));
    fprintf(e->file, " %s %s%s.\n", f->held[f->bound] < f->lower_bound ? "most of it for" : "for",
            pb_bound_name(f->bound),
            f->bound == PB_BOUND_COMPUTE && e->limits->machine.shared_cores && e->plan->deferred
                ? " together with the copies and host updates, for these run on the same processors"
                : "");
    const double idle = f->seconds - f->busy[PB_LANE_COMPUTE];
    if (e->plan->deferred && f->seconds > 0)
        fprintf(e->file, "  The device waits for %.1f%% of the step.\n", 100 * idle / f->seconds);
}

pb_status pb_plan_explain(const pb_memory_limits *limits, const pb_step_plan *plan, FILE *file) {
    explanation e = {.limits = limits, .plan = plan, .file = file};
    pb_step_plan_homes(plan, e.home);
    PB_RETURN_IF(pb_step_plan_moved(plan, e.moved));
    pb_step_plan_work(plan, &limits->machine, &e.work);
    explain_verdict(&e);
    explain_homes(&e);
    explain_moves(&e);
    explain_updates(&e);
    explain_recomputation(&e);
    explain_time(&e);
    return PB_OK;
}

// bench: links=io,base
// Loss curves as a picture, for scripts/fidelity.sh: above, the training loss of each format, its seeds' mean,
// smoothed; below, how far each is from the one with the same arithmetic and fp32 state (whose name is what is before
// the comma), in percent. Usage: bench_curves OUT.svg TITLE NAME=METRICS.jsonl[,METRICS.jsonl...]...
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 100000, CURVES = 16, LEFT = 64, WIDTH = 760, TOP = 64, PANEL = 250, GAP = 70, KEY = 150 };

typedef struct curve {
    char *name;
    double *loss;
    int steps;
} curve;

static const char *const colours[] = {"#222b33", "#3f6fb5", "#86aede", "#c0617a", "#e08b4a", "#46a58a",
                                      "#8f7cc3", "#e3c655", "#7a5230", "#e3a6b5", "#66717c", "#2f8f4e"};
enum { COLOURS = sizeof colours / sizeof *colours };

static void add_file(curve *c, const char *path, int *files) {
    char line[1024];
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        exit(1);
    }
    int step = 0;
    for (; step < STEPS && fgets(line, sizeof line, file); step++) {
        const char *at = strstr(line, "\"loss\": ");
        if (at) c->loss[step] += strtod(at + 8, NULL);
    }
    fclose(file);
    c->steps = *files && c->steps < step ? c->steps : step;
    (*files)++;
}

static void read_curve(curve *c, const char *argument) {
    char *text = strdup(argument);
    c->loss = calloc(STEPS, sizeof *c->loss);
    char *files = text ? strrchr(text, '=') : NULL;
    if (!c->loss || !files) exit(2);
    *files++ = 0;
    c->name = text;
    // Names have commas, paths as well where a folder has the name: a path ends with .jsonl.
    int count = 0;
    for (char *path = files, *end; path && *path; path = end) {
        end = strstr(path, ".jsonl");
        if (!end) exit(2);
        end += strlen(".jsonl");
        const char after = *end;
        *end = 0;
        add_file(c, path, &count);
        if (after) end++;
    }
    for (int i = 0; i < c->steps; i++) c->loss[i] /= count;
}

// Steps differ much more in their time steps and noise than formats differ.
static void smooth(curve *c, int window) {
    double sum = 0;
    double *mean = calloc(STEPS, sizeof *mean);
    if (!mean) exit(1);
    for (int i = 0; i < c->steps; i++) {
        sum += c->loss[i];
        if (i >= window) sum -= c->loss[i - window];
        mean[i] = sum / (i < window ? i + 1 : window);
    }
    free(c->loss);
    c->loss = mean;
}

// The curve that curve k is compared with: the first of its group, or itself.
static int first_of_group(const curve *curves, int k) {
    const size_t group = strcspn(curves[k].name, ",");
    for (int i = 0; i < k; i++)
        if (strlen(curves[i].name) == group && !strncmp(curves[i].name, curves[k].name, group)) return i;
    return k;
}

static double value(const curve *curves, int k, int i, bool relative) {
    const double loss = curves[k].loss[i];
    return relative ? 100 * (loss / curves[first_of_group(curves, k)].loss[i] - 1) : loss;
}

static void panel(FILE *svg, const curve *curves, int count, int from, double top, const char *heading, bool relative) {
    double low = relative ? 0 : 1e300, high = relative ? 0 : -1e300;
    int steps = 0;
    for (int k = 0; k < count; k++) {
        steps = curves[k].steps > steps ? curves[k].steps : steps;
        for (int i = from; i < curves[k].steps; i++) {
            low = fmin(low, value(curves, k, i, relative));
            high = fmax(high, value(curves, k, i, relative));
        }
    }
    const double room = 0.05 * (high - low) + 1e-9;
    low -= room, high += room;
    double tick = pow(10, floor(log10((high - low) / 3)));
    if ((high - low) / tick > 6) tick *= (high - low) / tick > 15 ? 5 : 2;
    fprintf(svg, "<text class=\"heading\" x=\"%d\" y=\"%.0f\">%s</text>\n", LEFT, top - 10, heading);
    for (double at = ceil(low / tick) * tick; at <= high; at += tick) {
        const double y = top + PANEL * (high - at) / (high - low);
        fprintf(svg, "<path class=\"grid\" d=\"M%d %.1fh%d\"/><text class=\"tick\" x=\"%d\" y=\"%.1f\">%.4g%s</text>\n",
                LEFT, y, WIDTH, LEFT - 6, y + 4, fabs(at) < 1e-9 ? 0 : at, relative ? "%" : "");
    }
    for (int k = 0; k < count; k++) {
        if (relative && first_of_group(curves, k) == k) continue;
        fprintf(svg, "<path class=\"line\" stroke=\"%s\" d=\"M", colours[k % COLOURS]);
        for (int i = from; i < curves[k].steps; i++)
            fprintf(svg, "%.1f %.1f ", LEFT + WIDTH * (double)(i + 1) / steps,
                    top + PANEL * (high - value(curves, k, i, relative)) / (high - low));
        fprintf(svg, "\"/>\n");
    }
    for (int i = 0; i <= 4; i++)
        fprintf(svg, "<text class=\"middle\" x=\"%.1f\" y=\"%.1f\">%d</text>\n", LEFT + WIDTH * i / 4.0,
                top + PANEL + 18, steps * i / 4);
}

int main(int argc, char **argv) {
    static curve curves[CURVES];
    const int count = argc - 3;
    if (count < 1 || count > CURVES) return 2;
    for (int k = 0; k < count; k++) read_curve(&curves[k], argv[k + 3]);
    const int window = curves[0].steps / 8 > 1 ? curves[0].steps / 8 : 1;
    for (int k = 0; k < count; k++) smooth(&curves[k], window);
    FILE *svg = fopen(argv[1], "w");
    if (!svg) {
        perror(argv[1]);
        return 1;
    }
    const int height = TOP + 2 * PANEL + GAP + 40, width = LEFT + WIDTH + KEY;
    fprintf(svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<style>text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#222b33}.title{font-size:17px}"
            ".heading{font-size:13px}.tick{text-anchor:end;fill:#66717c}.middle{text-anchor:middle;fill:#66717c}"
            ".grid{stroke:#e3e7ea;fill:none}.line{fill:none;stroke-width:1.5}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/><text class=\"title\" x=\"%d\" y=\"28\">%s</text>\n",
            width, height, width, height, width, height, LEFT, argv[2]);
    char heading[128];
    snprintf(heading, sizeof heading, "Loss, mean of the last %d steps", window);
    panel(svg, curves, count, window - 1, TOP, heading, false);
    panel(svg, curves, count, window - 1, TOP + PANEL + GAP, "Against the same arithmetic with fp32 state", true);
    for (int k = 0; k < count; k++)
        fprintf(svg,
                "<rect x=\"%d\" y=\"%d\" width=\"14\" height=\"4\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>\n",
                LEFT + WIDTH + 16, TOP + 20 * k + 6, colours[k % COLOURS], LEFT + WIDTH + 36, TOP + 20 * k + 12,
                curves[k].name);
    fprintf(svg, "</svg>\n");
    if (fclose(svg)) return 1;
    for (int k = 0; k < count; k++) free(curves[k].name), free(curves[k].loss);
    return 0;
}
